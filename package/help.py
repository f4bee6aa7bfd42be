"""Texts of the command line's help. The module imports nothing heavy, so that help is printed at once."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .agents.presets import AGENTS

# Lines of at most 78 characters: a help page of 80 columns shows them as they are.
TARGETS = """\
targets           rules of the target network, for --target
  periodic:500              copy every 500 learner steps (hard target)
  periodic:500env           copy every 500 environment steps
  incremental:0.005         0.005 of the way every learner step (soft target)
  incremental:0.005@4       0.005 of the way every 4 learner steps
  incremental:cosine(0.004) step size that falls to 0 over the run (BYOL)
  frozen                    no update
  none                      no target: bootstrap from the online network
"""
SCHEDULES = """\
schedules         texts of a SCHEDULE, a number that can change in a run
  0.1                       constant
  linear(1,0.05,25%)        from 1 to 0.05 over the first 25 % of the run
  linear(1,0.05,10000)      from 1 to 0.05 over the first 10000 steps
  exponential(10,3,10000)   geometric: the ratio of two steps is constant
  cosine(0.001,0,100%)      half a cosine
  horizon(0.97,0.997,10000) geometric in the horizon, 1 / (1 - value)
  linear(10,3,5000)@resets  starts again at each reset of the network
"""


class CommandHelp(NamedTuple):
    """Help of one command.

    Attributes:
        usage: Name of the command and its arguments.
        summary: Description on one line, for the overview.
        examples: Command lines; the first two are in the overview.
    """

    usage: str
    summary: str
    examples: tuple[str, ...]


COMMANDS: Mapping[str, CommandHelp] = {
    "train": CommandHelp(
        "train [AGENT]",
        "train an agent; alone, n_step_double_dqn on CartPole-v1",
        (
            "polyak train",
            "polyak train dqn --env Acrobot-v1 --target incremental:0.005 --num-envs 4",
            "polyak train dqn --head quantile --num-quantiles 20 --n-steps 3",
            "polyak train --target periodic:500env --seed 1 --out runs/hard-1",
            "polyak train --target 'incremental:cosine(0.01)' --average incremental:0.001",
            "polyak train --target 'periodic:500 q/torso=none'",
            "polyak train zp --target 'periodic:50 encoder=incremental:0.005'",
            "polyak train --initial runs/RUN --epsilon 'linear(0.1,0.01,50%)'",
            "polyak train --initial runs/RUN --initial-part encoder",
            "polyak train dqn --seeds 5 --out runs/dqn",
            "polyak train --evaluate-every 5000 --stop-at-return 475",
            "polyak train dqn --env my_module:MyEnv --env-kwargs '{\"size\": 3}'",
            "polyak train dqn --env my_module:MyEnv --wrapper my_module:wrap",
        ),
    ),
    "sweep": CommandHelp(
        "sweep [AGENT]",
        "train a grid of settings and seeds in one program",
        (
            "polyak sweep dqn --target periodic:50 incremental:0.005 none --seeds 16",
            "polyak sweep dqn --target none 'periodic:500 q/torso=none' --seeds 5",
            "polyak sweep dqn --learning-rate 1e-4 1e-3 --discount 0.97 0.99 --seeds 8",
            "polyak sweep c51 --num-atoms 21 51 --seeds 8 --lanes vmap",
        ),
    ),
    "pretrain": CommandHelp(
        "pretrain [METHOD]",
        "pretrain an encoder on images with BYOL, without labels",
        (
            "polyak pretrain byol --data mnist5k",
            "polyak pretrain byol --data mnist5k --target none",
            "polyak pretrain byol --data frames.npz --torso nature --hidden-sizes 512",
            "polyak pretrain byol --optimizer lars --learning-rate 0.2",
        ),
    ),
    "check": CommandHelp(
        "check ENV",
        "test whether an environment keeps the rules of the loops",
        (
            "polyak check FrozenLake-v1",
            "polyak check my_module:make_env --num-envs 1024",
            "polyak check my_module:MyEnv --env-kwargs '{\"size\": 3}' --steps 5000",
        ),
    ),
    "record-frames": CommandHelp(
        "record-frames ENV",
        "record observations under random actions, to pretrain on",
        ("polyak record-frames ALE/Breakout-v5 --out frames.npz --frame-stack 4",),
    ),
    "resume": CommandHelp(
        "resume RUN",
        "continue a run that was stopped or killed",
        ("polyak resume runs/RUN", "polyak resume runs/RUN --steps 200000"),
    ),
    "evaluate": CommandHelp(
        "evaluate RUN",
        "play episodes with the parameters of a run",
        (
            "polyak evaluate runs/RUN --episodes 100",
            "polyak evaluate runs/RUN --epsilon 0.05 --seed 7",
            "polyak evaluate runs/RUN --checkpoint best",
        ),
    ),
    "record": CommandHelp(
        "record RUN",
        "write a video of greedy episodes, or a GIF without ffmpeg",
        ("polyak record runs/RUN", "polyak record runs/RUN --episodes 3 --out episodes.gif --checkpoint newest"),
    ),
    "compare": CommandHelp(
        "compare RUN...",
        "print a table of runs over their seeds, and draw a figure",
        (
            "polyak compare runs --threshold 475 --figure comparison.pdf",
            "polyak compare runs/hard-1 runs/hard-2 runs/soft-1 runs/soft-2",
            "polyak compare runs/hard runs/soft --label periodic:50=hard --improvement",
            "polyak compare runs --group-by target n_steps --profile profile.pdf",
            "polyak compare runs --format csv > comparison.csv",
        ),
    ),
    "export": CommandHelp(
        "export RUN",
        "write trained parameters as safetensors or npz",
        ("polyak export runs/RUN", "polyak export runs/RUN --format npz --out policy"),
    ),
    "agents": CommandHelp(
        "agents",
        "print a table of the agents, or the difference of two",
        ("polyak agents", "polyak agents --diff dqn rainbow", "polyak agents --preset atari --format markdown"),
    ),
}


def overview() -> str:
    """Return the text of ``polyak --help``.

    >>> print(overview().splitlines()[2])
    usage: polyak COMMAND [options]
    """
    commands = "".join(f"  {command.usage:<18}{command.summary}\n" for command in COMMANDS.values())
    agents = "".join(f"  {name:<19}{agent.summary}\n" for name, agent in AGENTS.items())
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
    """Return the text above the options in a command's help: summary, targets, schedules, examples."""
    parts = [
        f"{summary}\n",
        *([TARGETS, SCHEDULES] if command in ("train", "sweep", "pretrain") else []),
        f"examples\n{_lines(COMMANDS[command].examples)}",
    ]
    return "\n".join(parts)


def ending(command: str) -> str:
    """Return the text below the options in the short help of a command that trains: targets and examples."""
    shown = "\n".join((TARGETS, f"examples\n{_lines(COMMANDS[command].examples[:4])}"))
    agents = "`polyak agents` lists the agents.\n" if command in ("train", "sweep") else ""
    schedule = "SCHEDULE is a number, or a text such as linear(1,0.05,25%).\n"
    return f"{schedule}\n{shown}\n{agents}`--help-all` prints all options, the schedules and more examples."


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"  {text}\n" for text in texts)
