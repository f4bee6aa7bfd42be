"""The ``polyak`` command; ``python -m polyak`` is the same. Help is answered before anything heavy is imported."""

import sys

HELP = """\
polyak: agents that bootstrap from a slow copy of themselves

usage: polyak COMMAND [options]

commands
  train [AGENT]   train an agent; alone it trains a DQN on CartPole-v1 (the quickstart)
  resume RUN      continue a run that was stopped or killed, as if it had never been
  evaluate RUN    play episodes with the parameters of a finished run
  export RUN      write the trained network for elsewhere: safetensors or npz, with a manifest

agents
  dqn             DQN, double by default (--no-double), with --dueling

targets           what --target takes: the rule under which the slow copy moves
  periodic:500              a copy every 500 learner steps (hard target)
  periodic:500env           the same, counted in environment steps
  incremental:0.005         0.005 of the way every learner step (soft target)
  incremental:0.005@4       the same, every 4 learner steps
  incremental:cosine(0.004) a step size that falls to 0 over the run (BYOL)
  frozen                    never
  none                      no copy: bootstrap from the online network itself

examples
  polyak train
  polyak train dqn --env Acrobot-v1 --target incremental:0.005 --num-envs 4
  polyak resume runs/RUN
  polyak evaluate runs/RUN --episodes 100
  polyak train --initial runs/RUN
  polyak export runs/RUN

`polyak COMMAND --help` lists the options of a command.
"""


def main() -> None:
    """Runs the command line on ``sys.argv`` and exits with its status."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0)
    if arguments[0] == "--version":
        from . import __version__

        print(__version__)
        sys.exit(0)
    try:
        sys.exit(_run(arguments))
    except KeyboardInterrupt:  # before a run has begun; afterwards the run itself takes care
        sys.exit(130)


def _run(arguments: list[str]) -> int:
    import jax

    # A dispatch that runs in the calling thread takes a fifth of the time when its result is fetched at once.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    from .experiments.cli import run

    return run(arguments)


if __name__ == "__main__":
    main()
