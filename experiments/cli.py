"""Command line: each command is a frozen dataclass of ``commands.py``, which tyro fills, and a function that runs it.

A command imports its modules after it has read its arguments, so that help is printed at once.
"""

import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from .. import help
from ..agents.fields import check_name
from ..agents_table import agents_table, difference_table
from .commands import (
    AgentsCommand,
    CheckCommand,
    CompareCommand,
    EvaluateCommand,
    ExportCommand,
    PretrainCommand,
    RecordCommand,
    RecordFramesCommand,
    ResumeCommand,
    SweepCommand,
    TrainCommand,
)
from .runs.config import RunConfig
from .runs.flags import parse_pretraining, parse_run
from .runs.pretrain_config import PretrainConfig
from .runs.sweep_flags import parse_sweep

WAY_ON = "continue with:"  # in the note of an error that ended a run


def run(arguments: Sequence[str]) -> int:
    """Run one command, and return its status: 0 done, 1 a fault or a failed check, 2 bad input, 130 interrupted."""
    try:
        command = check_name(arguments[0], _COMMANDS, "command")
        status = _COMMANDS[command](list(arguments[1:]))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of stdout has closed it
        sys.stdout = None  # or Python would report the pipe when it ends
        return 0
    except KeyboardInterrupt:
        print("polyak: interrupted; continue a run that has begun with: polyak resume RUN", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if not _is_ours(error):
            raise
        print(f"polyak: {error}", file=sys.stderr)
        if isinstance(error, RuntimeError) and error.__cause__ is not None:  # an EnvironmentFailure
            from .environments.worker import own_traceback

            print(own_traceback(error.__cause__), file=sys.stderr)
        for note in getattr(error, "__notes__", []):
            if "JAX_TRACEBACK_FILTERING" in note:  # added by JAX to an error of a trace
                continue
            print(f"polyak: {note}", file=sys.stderr)
        has_begun = any(WAY_ON in note for note in getattr(error, "__notes__", []))
        return 2 if isinstance(error, ValueError | TypeError) and not has_begun else 1


def _train(arguments: list[str]) -> int:
    config, command = parse_run(arguments, TrainCommand, _description("train", TrainCommand), help.ending("train"))
    from .reports.progress import Progress
    from .runs import folders
    from .runs import train as runs

    folder = command.out or folders.default_folder(config)
    if command.seeds != 1:
        return _train_seeds(config, folder, command.seeds, command.quiet)
    with Progress(config, quiet=command.quiet) as progress:
        result = runs.train(config, folder, progress.show, progress.say, progress.begin)
    return _report(folder, result)


def _train_seeds(config: RunConfig, folder: pathlib.Path, seeds: int, quiet: bool) -> int:
    from .reports.comparison import compare
    from .reports.comparison_table import comparison_table
    from .reports.figures import comparison_figure
    from .reports.progress import tell
    from .reports.seeds import SeedsProgress, train_seeds

    progress = SeedsProgress(config, seeds, quiet=quiet)
    try:
        ends = train_seeds(config, folder, seeds, progress.show, progress.say)
    finally:
        progress.close()
    begun = [seed for seed in ends if (folder / f"seed{seed}" / "metrics.jsonl").is_file()]
    if begun:
        comparison = compare(folder)
        tell(comparison_table(comparison, "text").rstrip())
        if comparison.curves:
            comparison_figure(comparison, folder / "comparison.png")
            tell(f"figure    {folder / 'comparison.png'}")
    for seed in [seed for seed, end in ends.items() if end is None]:
        tell(f"continue  polyak resume {shlex.quote(str(folder / f'seed{seed}'))}")
    failed = [f"seed {seed}: {end}" for seed, end in ends.items() if isinstance(end, str)]
    for text in failed:
        print(f"polyak: {text}", file=sys.stderr)
    return 1 if failed else 0 if all(ends.values()) and len(ends) == seeds else 130


def _sweep(arguments: list[str]) -> int:
    description = _description("sweep", SweepCommand)
    read = parse_sweep(arguments, SweepCommand, description, help.ending("sweep"))
    command = read.command
    from .reports.sweep_progress import SweepProgress
    from .runs.folders import default_sweep_folder
    from .runs.sweep import sweep
    from .runs.sweep_grid import make_grid

    grid = make_grid(read.agent, read.preset, read.fields, read.axes, command.seeds)
    folder = command.out or default_sweep_folder(grid.lanes[0].config, grid.axes)
    with SweepProgress(grid, quiet=command.quiet) as progress:
        ends = sweep(grid, folder, progress.show, progress.say, lanes=command.lanes)
    return _report_sweep(folder, ends)


def _report_sweep(folder: pathlib.Path, ends: Mapping[str, Any]) -> int:
    if None in ends.values():
        return 130
    from .reports.progress import tell
    from .reports.sweep_report import write

    if any((folder / name / "config.json").is_file() for name in ends):
        for line in write(folder):
            tell(line)
    tell(f"sweep     {folder}")
    failed = {name: end for name, end in ends.items() if isinstance(end, str) and "diverged" not in end}
    for name, end in failed.items():
        print(f"polyak: {name}: {end}", file=sys.stderr)
    return 1 if failed else 0


def _pretrain(arguments: list[str]) -> int:
    description = _description("pretrain", PretrainCommand)
    config, command = parse_pretraining(arguments, PretrainCommand, description, help.ending("pretrain"))
    from .reports.progress import Progress
    from .runs import folders
    from .runs.pretrain import pretrain

    folder = command.out or folders.default_folder(config)
    with Progress(config, quiet=command.quiet) as progress:
        result = pretrain(config, folder, progress.show, progress.say, progress.begin)
    return _report_pretraining(folder, result)


def _check(arguments: list[str]) -> int:
    command = _parse(CheckCommand, "check", arguments)
    from .environments.check import check

    findings = check(
        command.env,
        env_kwargs=command.env_kwargs,
        wrappers=command.wrapper,
        steps=command.steps,
        num_envs=command.num_envs,
    )
    print(*findings, sep="\n")
    failed = sum(finding.status == "failed" for finding in findings)
    print(f"{failed} of {len(findings)} checks failed" if failed else "no check failed")
    return 1 if failed else 0


def _record_frames(arguments: list[str]) -> int:
    command = _parse(RecordFramesCommand, "record-frames", arguments)
    from .runs.record_frames import record_frames

    images = record_frames(
        command.env, command.out, steps=command.steps, frame_stack=command.frame_stack, seed=command.seed
    )
    print(f"recorded  {command.out}, images {images.shape} {images.dtype}")
    return 0


def _resume(arguments: list[str]) -> int:
    command = _parse(ResumeCommand, "resume", arguments)
    from .reports.progress import Progress
    from .runs import folders

    if folders.is_sweep(command.run):
        return _resume_sweep(command)
    config = folders.read_any_config_to_resume(command.run)
    with Progress(config, quiet=command.quiet) as progress:
        shown = progress.show, progress.say, progress.begin
        if isinstance(config, PretrainConfig):
            from .runs.pretrain import resume_pretraining

            if command.steps is not None:
                raise ValueError("steps: a pretraining run is not extended; its learning rate has fallen to 0.")
            return _report_pretraining(command.run, resume_pretraining(command.run, *shown))
        from .runs import train as runs

        result = runs.resume(command.run, *shown, steps=command.steps)
    return _report(command.run, result)


def _resume_sweep(command: ResumeCommand) -> int:
    from .reports.sweep_progress import SweepProgress
    from .runs.sweep import check_no_steps, resume_sweep
    from .runs.sweep_saving import read_sweep

    check_no_steps(command.steps)
    with SweepProgress(read_sweep(command.run).grid, quiet=command.quiet) as progress:
        ends = resume_sweep(command.run, progress.show, progress.say)
    return _report_sweep(command.run, ends)


def _evaluate(arguments: list[str]) -> int:
    command = _parse(EvaluateCommand, "evaluate", arguments)
    from .runs.evaluation import evaluate_run

    found = evaluate_run(command.run, command.episodes, command.seed, command.epsilon, checkpoint=command.checkpoint)
    print(_evaluation_line(found))
    return 0


def _record(arguments: list[str]) -> int:
    command = _parse(RecordCommand, "record", arguments)
    from .runs.record import record

    path = record(command.run, command.out, episodes=command.episodes, seed=command.seed, checkpoint=command.checkpoint)
    print(f"recorded  {path}")
    return 0


def _export(arguments: list[str]) -> int:
    command = _parse(ExportCommand, "export", arguments)
    from . import api

    for path in sorted(
        api.export(command.run, command.out, format=command.format, checkpoint=command.checkpoint).iterdir()
    ):
        print(f"exported  {path}")
    return 0


def _compare(arguments: list[str]) -> int:
    command = _parse(CompareCommand, "compare", arguments)
    from .reports.comparison import compare
    from .reports.comparison_table import comparison_table, improvement_table
    from .reports.figures import comparison_figure, curve_caption, profile_caption, profile_figure
    from .reports.heat_map import heat_map_caption, heat_map_figure
    from .reports.run_groups import parse_labels
    from .reports.sweep_figures import final_score_caption, final_score_figure

    comparison = compare(
        *command.runs,
        threshold=command.threshold,
        window=command.window,
        group_by=command.group_by,
        labels=parse_labels(command.label),
    )
    if command.improvement:
        shown = improvement_table(comparison, command.format, caption=command.caption)
    else:
        shown = comparison_table(comparison, command.format, statistics=command.statistics, caption=command.caption)
    for path, write, caption in (
        (command.figure, comparison_figure, curve_caption),
        (command.profile, profile_figure, profile_caption),
        (command.final_score, final_score_figure, final_score_caption),
        (command.heat_map, heat_map_figure, heat_map_caption),
    ):
        if path is not None:
            write(comparison, path, size=command.size)
            print("\n".join([f"figure    {path}", *(caption(comparison) if command.caption else [])]), file=sys.stderr)
    for note in comparison.notes:
        print(f"polyak: {note}", file=sys.stderr)
    print(shown, end="")
    return 0


def _agents(arguments: list[str]) -> int:
    command = _parse(AgentsCommand, "agents", arguments)
    if command.diff is None:
        print(agents_table(command.preset, command.format), end="")
    else:
        one, other = command.diff
        print(difference_table(one, other, command.preset, command.format), end="")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "sweep": _sweep,
    "pretrain": _pretrain,
    "check": _check,
    "record-frames": _record_frames,
    "resume": _resume,
    "evaluate": _evaluate,
    "record": _record,
    "compare": _compare,
    "export": _export,
    "agents": _agents,
}


def _parse(command: type[Any], name: str, arguments: list[str]) -> Any:
    return tyro.cli(command, args=arguments, prog=f"polyak {name}", description=_description(name, command))


def _description(name: str, command: type[Any]) -> str:
    """Text above the options in a command's help: the first line of its docstring, targets, examples."""
    return help.description(name, (command.__doc__ or "").partition("\n")[0])


def _report(folder: pathlib.Path, result: dict[str, Any] | None) -> int:
    if result is None:
        return 130
    from .reports.progress import tell

    tell(_evaluation_line(result))
    tell(f"run       {folder}")
    tell(f"picture   {folder / 'learning_curve.png'}")
    tell(f"evaluate  polyak evaluate {shlex.quote(str(folder))} --episodes 100")
    return 0


def _report_pretraining(folder: pathlib.Path, result: dict[str, Any] | None) -> int:
    if result is None:
        return 130
    from .reports.progress import tell
    from .runs.folders import read_pretrain_config

    names = {"probe/few_labels": "10 labels a class", "probe/linear": "all labels", "probe/knn": "neighbours"}
    for name, label in names.items() if result["encoder"] else ():
        ours, start, pixels = (result[of][name] for of in ("encoder", "initial_encoder", "pixels"))
        tell(f"{label:<18} {ours:.3f}   at the start {start:.3f}, pixels {pixels:.3f}")
    tell(f"{'spread':<18} {result['projection_spread']:.3f}   of the projections; 0 where they have collapsed")
    tell(f"{'run':<18} {folder}")
    tell(f"{'pictures':<18} {folder / 'learning_curve.png'} {folder / 'embedding.png'}")
    encoder = read_pretrain_config(folder).byol.encoder
    sizes = " ".join(map(str, encoder.hidden_sizes))
    tell(
        f"{'start an agent':<18} polyak train --env ENV --torso {encoder.torso} --hidden-sizes {sizes} --initial "
        f"{shlex.quote(str(folder))} --initial-part encoder, on images of the same shape"
    )
    return 0


def _evaluation_line(result: dict[str, Any]) -> str:
    error = "" if result["standard_error"] is None else f" ± {result['standard_error']:.1f}"
    how = "greedy" if result["epsilon"] == 0 else f"epsilon {result['epsilon']:g}"
    return f"return    {result['mean']:.1f}{error} ({how}, {result['episodes']} episodes, mean ± standard error)"


def _is_ours(error: BaseException) -> bool:
    """Whether polyak raised the error itself, about its input; any other error is a fault and keeps its traceback.

    A RuntimeError is polyak's only if it is an EnvironmentFailure.
    """
    if isinstance(error, RuntimeError):
        from .environments.types import EnvironmentFailure

        return isinstance(error, EnvironmentFailure)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("polyak.")
