"""Sweeps: runs of a grid of settings and seeds, as lanes of compiled programs or as processes of this machine.

Files of a sweep: ``sweep.json`` (axes, lanes, settings), ``checkpoints/`` (stacked carries of each program), and a
folder with the files of a run for each lane.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from ..environments.types import EnvironmentFailure
from ..loops.learning import Record
from ..loops.sweep import Lanes as Mode
from . import checkpoint
from .build import resolved
from .consumers import Report
from .drive import CHECKPOINTS
from .files import locked
from .folders import prepare_folder, resume_command
from .loggers import check_installed
from .side_by_side import Job, run_side_by_side
from .source import Loop, source_of
from .sweep_drive import Drive, LaneEnds, Show, ended_lanes
from .sweep_grid import Grid, Lane, groups_of, label_of
from .sweep_lanes import Lanes, make_lanes
from .sweep_memory import announcement, available_bytes, check_memory, counts
from .sweep_saving import SavedSweep, mark_lane, note_diverged, read_sweep, write_lane, write_sweep
from .train import settings_warnings

Choice = Literal["auto", "map", "vmap"]


def sweep(
    grid: Grid,
    folder: pathlib.Path,
    show: Show,
    report: Report,
    *,
    lanes: Choice = "auto",
    given: Mapping[str, Any] = {},
) -> LaneEnds:
    """Train all lanes of a grid.

    Args:
        grid: Grid.
        folder: Folder of the sweep, which must be new or empty.
        show: Function called with the newest record of each lane and the ends so far.
        report: Function called with each message.
        lanes: Whether the lanes of a device run one after the other (``map``, equal to single runs to the bit) or as
            one batch (``vmap``, equal to rounding); ``auto`` is ``map`` on CPU, ``vmap`` on other devices.
        given: Objects passed from Python, by their text in the config.

    Returns:
        Name of each lane to its evaluation, to the text of its error, or to None if it was interrupted.

    Raises:
        ValueError, TypeError: if an input is wrong, before anything is compiled, for example if the sweep does not fit
            into memory.
    """
    check_installed(grid.lanes[0].config.loggers)
    if folder.exists():
        prepare_folder(folder)
    if _loop_of(grid.lanes, given) == "host":
        prepare_folder(folder)
        with locked(folder):
            saved = write_sweep(folder, grid, None, {})
            report(f"sweep     {counts(grid)}, as processes, {os.cpu_count()} at a time")
            return _in_processes(saved, show, report, given)
    mode: Mode = _mode() if lanes == "auto" else lanes
    programs = _programs(grid.lanes, mode, given)
    for line in announcement(grid, programs):
        report(line)
    for text in dict.fromkeys(
        text for program in programs for one in program.described for text in settings_warnings(one)
    ):
        report(f"warning: {text}")
    prepare_folder(folder)
    with locked(folder):
        versions = resolved(programs[0].described[0], "")["versions"]
        saved = write_sweep(folder, grid, mode, versions)
        for program in programs:
            for lane, parts in zip(program.lanes, program.described, strict=True):
                write_lane(folder, lane.name, parts)
        return _on_devices(saved, programs, show, report)


def check_no_steps(steps: int | None) -> None:
    """Check that a sweep is continued without a new number of steps.

    Raises:
        ValueError: if a number is given.
    """
    if steps is not None:
        raise ValueError(
            f"steps: got {steps}; a sweep is not extended, because its lanes end together. Start a longer sweep, or "
            "extend a lane alone: polyak train --initial LANE."
        )


def resume_sweep(folder: pathlib.Path, show: Show, report: Report, given: Mapping[str, Any] = {}) -> LaneEnds:
    """Continue a sweep exactly from its newest checkpoints; see :func:`sweep`.

    Raises:
        ValueError: if ``folder`` contains no sweep, or a checkpoint belongs to another sweep.
    """
    saved = read_sweep(folder)
    with locked(folder):
        if len(ends := ended_lanes(saved)) == len(saved.grid.lanes):
            report(f"{folder} has ended; nothing is left to do.")
            return ends
        report(f"resuming {folder}")
        if saved.mode is None:
            return _in_processes(saved, show, report, given)
        programs = _programs(saved.grid.lanes, saved.mode, given)
        for program in programs:
            for lane, parts in zip(program.lanes, program.described, strict=True):
                if not (folder / lane.name / "config.json").is_file():  # killed while it began
                    write_lane(folder, lane.name, parts)
        return _on_devices(saved, programs, show, report)


def _loop_of(lanes: Sequence[Lane], given: Mapping[str, Any]) -> Loop:
    """Loop of all lanes.

    Raises:
        ValueError: if some lanes are for the device loop and others are not.
    """
    found: dict[Loop, Lane] = {}
    for group in groups_of(lanes):
        found.setdefault(source_of(group[0].config, given)[1], group[0])
    if len(found) > 1:
        raise ValueError(
            f"loop: got the device loop for {found['device'].name} and the host loop for {found['host'].name}; "
            "expected one loop for all lanes. Try --loop host, or a sweep for each."
        )
    return next(iter(found))


def _mode() -> Mode:
    return "map" if jax.default_backend() == "cpu" else "vmap"


def _programs(lanes: Sequence[Lane], mode: Mode, given: Mapping[str, Any]) -> list[Lanes]:
    """Lanes of each program, which fit into memory."""
    devices = jax.local_devices()
    programs = [make_lanes(group, devices, mode, given) for group in groups_of(lanes)]
    for program in programs:
        check_memory(program, available_bytes())
    return programs


def _on_devices(saved: SavedSweep, programs: Sequence[Lanes], show: Show, report: Report) -> LaneEnds:
    ends = ended_lanes(saved)
    newest: dict[str, Record] = {}
    interrupted = False
    try:
        for number, lanes in enumerate(programs):
            if len(programs) > 1:
                report(f"program {number + 1} of {len(programs)}: {label_of(lanes.lanes, saved.grid.axes)}")
            interrupted = Drive(saved, lanes, number, newest, ends, show, report).run()
            if interrupted:
                break
    except KeyboardInterrupt:  # while lanes are evaluated; their last carry is saved
        interrupted = True
    except (OSError, ValueError, EnvironmentFailure) as error:
        _add_way_on(error, saved.folder)
        raise
    if interrupted:
        report(f"interrupted, saved; continue with: {resume_command(saved.folder)}")
    return {lane.name: ends.get(lane.name) for lane in saved.grid.lanes}


def _add_way_on(error: Exception, folder: pathlib.Path) -> None:
    """Add a note with the newest checkpoint and the command that continues the sweep; none without a checkpoint."""
    steps = [step for path in (folder / CHECKPOINTS).glob("*") for step in checkpoint.steps_saved(path)]
    if steps:
        error.add_note(f"the checkpoint of step {max(steps)} is kept; continue with: {resume_command(folder)}")


def _in_processes(saved: SavedSweep, show: Show, report: Report, given: Mapping[str, Any]) -> LaneEnds:
    """Run the lanes as processes; lanes that have ended are not run again."""
    ended, jobs = ended_lanes(saved), dict[str, Job]()
    for lane in saved.grid.lanes:
        if lane.name not in ended:
            folder = saved.folder / lane.name
            jobs[lane.name] = Job(lane.config, folder, resumes=(folder / "config.json").is_file())
    found = run_side_by_side(
        jobs,
        lambda newest, ends: show(newest, {**ended, **ends}),
        lambda name, text: report(f"{name}: {text}"),
        given,
    )
    diverged = {name: end for name, end in found.items() if isinstance(end, str) and "has diverged" in end}
    note_diverged(saved, diverged)
    for name in found:
        mark_lane(saved.folder, name)
    ends = {lane.name: {**ended, **found}.get(lane.name) for lane in saved.grid.lanes}
    if None in ends.values():
        report(f"interrupted, saved; continue with: {resume_command(saved.folder)}")
    return ends
