"""The command line: each command is a frozen dataclass that tyro fills, and a function that does it."""

import dataclasses
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from .. import help
from ..agents import AGENTS
from ..tables import TableFormat
from . import api
from .environments.types import EnvironmentFailure
from .environments.worker import own_traceback
from .loops.episodes import RECENT
from .reports.comparison import compare
from .reports.comparison_table import comparison_table
from .reports.figures import comparison_figure
from .reports.progress import Progress, tell
from .runs import folders
from .runs import train as runs
from .runs.config import RunConfig, known
from .runs.export import Format


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train an agent: progress while it runs, a folder with everything at the end.

    Attributes:
        config: the run.
        out: folder of the run, new or empty; by default one under runs/.
        quiet: print no progress.
    """

    config: RunConfig
    out: pathlib.Path | None = None
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class ResumeCommand:
    """Continue a run from its newest checkpoint, as if it had never stopped.

    Attributes:
        run: folder of the run.
        quiet: print no progress.
    """

    run: tyro.conf.Positional[pathlib.Path]
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Play whole episodes with the parameters of a finished run, in environments of their own.

    Attributes:
        run: folder of the run.
        episodes: how many.
        seed: of the environments; by default the one that the run's own evaluation had.
        epsilon: probability of a random action.
    """

    run: tyro.conf.Positional[pathlib.Path]
    episodes: int = 20
    seed: int | None = None
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Write the trained network of a finished run for elsewhere: parameters by name, and a manifest in JSON.

    Attributes:
        run: folder of the run.
        out: where to, new or empty; by default export/ in the run's folder.
        format: of the file of parameters.
    """

    run: tyro.conf.Positional[pathlib.Path]
    out: pathlib.Path | None = None
    format: Format = "safetensors"


@dataclasses.dataclass(frozen=True)
class CompareCommand:
    """Compare runs over their seeds: a table, and a figure if one is asked for. Runs that have not ended are shown too.

    Attributes:
        runs: folders of runs, or folders that hold runs.
        threshold: a training return; the table then tells the environment steps to reach it.
        window: training episodes that a training return is the mean of.
        format: of the table.
        figure: where to draw the curves, a file that ends in .png, .pdf or .svg.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[pathlib.Path, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(one or more)"),
    ]
    threshold: float | None = None
    window: int = RECENT
    format: TableFormat = "text"
    figure: pathlib.Path | None = None


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit status: 0 done, 1 stopped by a fault, 2 bad input, 130 interrupted."""
    try:
        command = known(arguments[0], _COMMANDS, "command")
        return _COMMANDS[command](list(arguments[1:]))
    except KeyboardInterrupt:
        print("polyak: interrupted; a run that has begun continues with: polyak resume RUN", file=sys.stderr)
        return 130
    except (ValueError, TypeError, EnvironmentFailure, OSError) as error:
        if not _is_ours(error):
            raise
        print(f"polyak: {error}", file=sys.stderr)
        if isinstance(error, EnvironmentFailure) and error.__cause__ is not None:
            print(own_traceback(error.__cause__), file=sys.stderr)
        for note in getattr(error, "__notes__", []):
            if "JAX_TRACEBACK_FILTERING" in note:  # JAX's, of what passed through a trace
                continue
            print(f"polyak: {note}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | TypeError) else 1


def _train(arguments: list[str]) -> int:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "dqn"
    default = TrainCommand(RunConfig(AGENTS[known(name, AGENTS, "agent")], name))
    command = tyro.cli(
        TrainCommand,
        args=arguments,
        default=default,
        prog=f"polyak train {name}",
        description=_description("train", TrainCommand),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    folder = command.out or folders.default_folder(command.config)
    with Progress(command.config, quiet=command.quiet) as progress:
        result = runs.train(command.config, folder, progress.show, progress.say, progress.begin)
    return _report(folder, result)


def _resume(arguments: list[str]) -> int:
    command = tyro.cli(
        ResumeCommand, args=arguments, prog="polyak resume", description=_description("resume", ResumeCommand)
    )
    with Progress(folders.read_config(command.run), quiet=command.quiet) as progress:
        result = runs.resume(command.run, progress.show, progress.say, progress.begin)
    return _report(command.run, result)


def _evaluate(arguments: list[str]) -> int:
    command = tyro.cli(
        EvaluateCommand, args=arguments, prog="polyak evaluate", description=_description("evaluate", EvaluateCommand)
    )
    result = runs.evaluate_run(command.run, command.episodes, command.seed, command.epsilon)
    print(_evaluation_line(result))
    return 0


def _export(arguments: list[str]) -> int:
    command = tyro.cli(
        ExportCommand, args=arguments, prog="polyak export", description=_description("export", ExportCommand)
    )
    folder = api.export(command.run, command.out, format=command.format)
    for path in sorted(folder.iterdir()):
        print(f"exported  {path}")
    return 0


def _compare(arguments: list[str]) -> int:
    command = tyro.cli(
        CompareCommand, args=arguments, prog="polyak compare", description=_description("compare", CompareCommand)
    )
    comparison = compare(*command.runs, threshold=command.threshold, window=command.window)
    if command.figure is not None:
        comparison_figure(comparison, command.figure)
        print(f"figure    {command.figure}", file=sys.stderr)
    for note in comparison.notes:
        print(f"polyak: {note}", file=sys.stderr)
    print(comparison_table(comparison, command.format), end="")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "resume": _resume,
    "evaluate": _evaluate,
    "compare": _compare,
    "export": _export,
    "agents": help.tell_agents,
}


def _description(command: str, kind: type[Any]) -> str:
    """What the help of a command says above its options: the first line of its docstring, targets, examples."""
    return help.description(command, (kind.__doc__ or "").partition("\n")[0])


def _report(folder: pathlib.Path, result: dict[str, Any] | None) -> int:
    if result is None:
        return 130
    tell(_evaluation_line(result))
    tell(f"run       {folder}")
    tell(f"picture   {folder / 'learning_curve.png'}")
    tell(f"evaluate  polyak evaluate {shlex.quote(str(folder))} --episodes 100")
    return 0


def _evaluation_line(result: dict[str, Any]) -> str:
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:.1f}"
    how = "greedy" if result["epsilon"] == 0 else f"epsilon {result['epsilon']:g}"
    return f"return    {result['mean']:.1f}{error} ({how}, {result['episodes']} episodes, mean ± standard error)"


def _is_ours(error: BaseException) -> bool:
    """Whether polyak raised the error itself, about its input; anything else is a fault and keeps its traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("polyak.")
