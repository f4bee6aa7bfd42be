"""What the command line says of itself; it imports nothing heavy, so that help and the agents come at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .catalogue import AGENTS, agents_table

# Lines of at most 78 characters: a help page of 80 columns shows them as they are.
TARGETS = """\
targets           what --target takes: the rule by which the slow copy moves
  periodic:500              a copy every 500 learner steps (hard target)
  periodic:500env           the same, counted in environment steps
  incremental:0.005         0.005 of the way every learner step (soft target)
  incremental:0.005@4       the same, every 4 learner steps
  incremental:cosine(0.004) a step size that falls to 0 over the run (BYOL)
  frozen                    never
  none                      no copy: bootstrap from the online network itself
"""


class CommandHelp(NamedTuple):
    """What is told of one command.

    Attributes:
        usage: the command and what it takes.
        summary: a line, for the overview.
        examples: command lines; the first two stand in the overview.
    """

    usage: str
    summary: str
    examples: tuple[str, ...]


COMMANDS: Mapping[str, CommandHelp] = {
    "train": CommandHelp(
        "train [AGENT]",
        "train an agent; alone it trains a DQN on CartPole-v1 (the quickstart)",
        (
            "polyak train",
            "polyak train dqn --env Acrobot-v1 --target incremental:0.005 --num-envs 4",
            "polyak train --target periodic:500env --seed 1 --out runs/hard-1",
            "polyak train --target 'incremental:cosine(0.01)' --average incremental:0.001",
            "polyak train --initial runs/RUN --epsilon-initial 0.1",
        ),
    ),
    "resume": CommandHelp(
        "resume RUN",
        "continue a run that was stopped or killed, as if it had never been",
        ("polyak resume runs/RUN",),
    ),
    "evaluate": CommandHelp(
        "evaluate RUN",
        "play episodes with the parameters of a finished run",
        ("polyak evaluate runs/RUN --episodes 100", "polyak evaluate runs/RUN --epsilon 0.05 --seed 7"),
    ),
    "compare": CommandHelp(
        "compare RUN...",
        "a table and a figure of runs over their seeds",
        (
            "polyak compare runs --threshold 475 --figure comparison.pdf",
            "polyak compare runs/hard-1 runs/hard-2 runs/soft-1 runs/soft-2",
            "polyak compare runs --format csv > comparison.csv",
        ),
    ),
    "export": CommandHelp(
        "export RUN",
        "write the trained network for elsewhere: safetensors or npz, a manifest",
        ("polyak export runs/RUN", "polyak export runs/RUN --format npz --out policy"),
    ),
    "agents": CommandHelp(
        "agents",
        "a table of the agents: papers, head, loss, replay, target",
        ("polyak agents", "polyak agents --format markdown"),
    ),
}


def overview() -> str:
    """The text of ``polyak --help``.

    >>> print(overview().splitlines()[2])
    usage: polyak COMMAND [options]
    """
    commands = "".join(f"  {command.usage:<16}{command.summary}\n" for command in COMMANDS.values())
    agents = "".join(f"  {name:<18}{agent.summary}\n" for name, agent in AGENTS.items())
    return f"""\
polyak: agents that bootstrap from a slow copy of themselves

usage: polyak COMMAND [options]

commands
{commands}
agents
{agents}
{TARGETS}
examples
{_lines(example for command in COMMANDS.values() for example in command.examples[:2])}
`polyak COMMAND --help` lists the options of a command.
"""


def description(command: str, summary: str) -> str:
    """What a command's own help says above its options: what it does, the targets where it takes one, examples."""
    parts = [
        f"{summary}\n",
        *([TARGETS] if command == "train" else []),
        f"examples\n{_lines(COMMANDS[command].examples)}",
    ]
    return "\n".join(parts)


def tell_agents(arguments: Sequence[str]) -> int:
    """The command ``polyak agents``, which needs nothing heavy; returns the exit status 0."""
    import tyro

    about = description("agents", "Print a table of the agents.")
    print(tyro.cli(agents_table, args=arguments, prog="polyak agents", description=about), end="")
    return 0


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"  {text}\n" for text in texts)
