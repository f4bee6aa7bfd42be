"""Sweeps: runs of a grid of settings and seeds, as lanes of compiled programs or as processes of this machine.

Files of a sweep: ``sweep.json`` (axes, lanes, settings), ``checkpoints/`` (stacked carries of each program), and a
folder with the files of a run for each lane.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import psutil

from ..loops import normalization
from ..loops.evaluation import evaluation_seed
from ..loops.learning import Record
from ..loops.sweep import Lanes as Mode
from ..loops.sweep import SweepCarry, sweep_loop
from . import checkpoint
from .build import resolved
from .compile_time import Compilations, compilations
from .consumers import Checkpoints, Report
from .drive import CHECKPOINTS, METRICS
from .evaluation import PARAMETERS, best_of, evaluation_of, is_due, keep_best, make_evaluation, save_parameters
from .files import locked, read_json, write_json
from .folders import prepare_folder, resume_command
from .interrupts import interrupts
from .loggers import check_installed, open_loggers
from .records import WINDOW, EpisodeMeans, plain, read_jsonl
from .side_by_side import Ends, Job, run_side_by_side
from .source import Loop, source_of
from .sweep_grid import Grid, Lane, groups_of, label_of
from .sweep_lanes import Lanes, bytes_of, initial_sweep, lane_states, make_lanes
from .sweep_saving import (
    LaneMetrics,
    SavedSweep,
    note_diverged,
    read_sweep,
    restore_sweep,
    save_sweep,
    sweep_identity,
    write_lane,
    write_sweep,
)
from .train import settings_warnings

LaneEnds = Ends[str]  # by the name of the lane; a text for a lane that has diverged or failed
Show = Callable[[Mapping[str, Record], LaneEnds], None]
Choice = Literal["auto", "map", "vmap"]
EVALUATION = "evaluation.json"


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
            report(f"sweep     {_count(grid)}, as processes, {os.cpu_count()} at a time")
            return _in_processes(saved, show, report, given)
    mode: Mode = _mode() if lanes == "auto" else lanes
    programs = _programs(grid.lanes, mode, given)
    for line in _announcement(grid, programs):
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


def _count(grid: Grid) -> str:
    sizes = [*(f"{len(values)} x {name}" for name, values in grid.axes.items())]
    seeds = len({lane.config.seed for lane in grid.lanes})
    return f"{len(grid.lanes)} lane{'s' if len(grid.lanes) > 1 else ''}: {', '.join([*sizes, f'{seeds} x seed'])}"


def _programs(lanes: Sequence[Lane], mode: Mode, given: Mapping[str, Any]) -> list[Lanes]:
    """Lanes of each program, which fit into memory."""
    devices = jax.local_devices()
    programs = [make_lanes(group, devices, mode, given) for group in groups_of(lanes)]
    for program in programs:
        check_memory(program, available_bytes())
    return programs


def available_bytes() -> int:
    """Number of bytes that are available on all devices."""
    statistics: list[Any] = [device.memory_stats() for device in jax.local_devices()]
    if all(one is not None and "bytes_limit" in one for one in statistics):
        return sum(one["bytes_limit"] - one["bytes_in_use"] for one in statistics)
    return int(psutil.virtual_memory().available)


def needed_bytes(lanes: Lanes) -> tuple[int, int]:
    """Number of bytes of one lane and of all lanes of a program; ``map`` copies the lane of each device that runs."""
    each, _ = bytes_of(lanes)
    program = lanes.program
    return each, each * (len(program.configs) + (len(program.devices) if program.lanes == "map" else 0))


def check_memory(lanes: Lanes, available: int) -> None:
    """Check that the lanes of a program fit into memory.

    Raises:
        ValueError: if they do not; the message has the number of lanes and the replay_capacity that fit.
    """
    each, total = needed_bytes(lanes)
    if total <= available:
        return
    capacity, count = lanes.parts.config.loop.replay.replay_capacity, len(lanes.lanes)
    replay = bytes_of(lanes)[1]
    copies = total // each
    fits = max(available // each - (copies - len(lanes.program.configs)), 0)
    smaller = int(capacity * (available / copies - (each - replay)) / replay)
    ways = [f"fewer lanes ({fits} fit)"] if fits else []
    ways += [f"--replay-capacity {smaller}"] if smaller > lanes.parts.config.loop.draw.batch_size else []
    raise ValueError(
        f"replay_capacity: got {capacity} for {count} lanes, which need {_size(total)} in all, {_size(each)} per lane; "
        f"{_size(available)} are available. Try {' or '.join(ways) or 'a smaller network'}."
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.2f} MiB"


def _announcement(grid: Grid, programs: Sequence[Lanes]) -> Iterator[str]:
    yield f"sweep     {_count(grid)}"
    first = programs[0].program
    how = "one after the other" if first.lanes == "map" else "as one batch"
    device = first.devices[0].platform.upper()
    count = max(len(one.program.devices) for one in programs)
    labels = [label_of(one.lanes, grid.axes) or f"{len(one.lanes)} lanes" for one in programs]
    several = f", compiled and run one after the other: {'; '.join(labels)}" if len(programs) > 1 else ""
    plural = "s" if len(programs) > 1 else ""
    yield f"programs  {len(programs)} program{plural}{several}"
    yield f"devices   {count} {device} device{'s' if count > 1 else ''}, the lanes of each {how}"
    each = max(needed_bytes(one)[0] for one in programs)
    total = max(needed_bytes(one)[1] for one in programs)
    yield (f"memory    {_size(each)} per lane, {_size(total)} in all; {_size(available_bytes())} are available")


def _on_devices(saved: SavedSweep, programs: Sequence[Lanes], show: Show, report: Report) -> LaneEnds:
    ends: LaneEnds = {name: _diverged(reason) for name, reason in saved.diverged.items()}
    newest: dict[str, Record] = {}
    interrupted = False
    try:
        for number, lanes in enumerate(programs):
            if len(programs) > 1:
                report(f"program {number + 1} of {len(programs)}: {label_of(lanes.lanes, saved.grid.axes)}")
            interrupted = _Drive(saved, lanes, number, newest, ends, show, report).run()
            if interrupted:
                break
    except KeyboardInterrupt:  # while lanes are evaluated; their last carry is saved
        interrupted = True
    if interrupted:
        report(f"interrupted, saved; continue with: {resume_command(saved.folder)}")
    return {lane.name: ends.get(lane.name) for lane in saved.grid.lanes}


class _Drive:
    """Run of one program of a sweep, with the files of its lanes."""

    def __init__(
        self,
        saved: SavedSweep,
        lanes: Lanes,
        number: int,
        newest: dict[str, Record],
        ends: LaneEnds,
        show: Show,
        report: Report,
    ) -> None:
        self._saved, self._lanes, self._newest, self._ends = saved, lanes, newest, ends
        self._show, self._report = show, report
        self._names = [lane.name for lane in lanes.lanes]
        self._folders = [saved.folder / name for name in self._names]
        self._config = lanes.lanes[0].config
        self._checkpoints = saved.folder / CHECKPOINTS / str(number)
        self._evaluate = make_evaluation(lanes.parts)

    def run(self) -> bool:
        """Run the program to its end; return whether it was interrupted."""
        for name, folder in zip(self._names, self._folders, strict=True):
            if (folder / EVALUATION).is_file():
                self._ends[name] = read_json(folder / EVALUATION)
        if all(name in self._ends for name in self._names):
            return False
        carry, positions = self._begin()
        metrics = LaneMetrics(self._folders, positions)
        means, best = self._earlier(carry.steps)
        identity, config = sweep_identity(self._saved, self._lanes), self._config

        def save(carry: SweepCarry) -> None:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            save_sweep(self._lanes, carry, self._checkpoints, metrics.positions(), identity)

        with interrupts() as interrupted, compilations() as compiled, contextlib.ExitStack() as stack:
            logs = [
                stack.enter_context(
                    open_loggers(config.loggers, folder, carry.steps, read_json(folder / "config.json"), self._report)
                )
                for folder in self._folders
                if config.loggers
            ]
            saved_at = carry.steps if checkpoint.steps_saved(self._checkpoints) else -1
            checkpoints = Checkpoints(
                save,
                steps=config.steps,
                every=config.checkpoint_every,
                saved=saved_at,
                interrupted=interrupted,
                report=self._report,
            )
            consumers = [metrics.write, lambda lane, record: logs[lane](record) if logs else None]
            last: int | None = None
            found = sweep_loop(
                self._lanes.program,
                carry,
                steps=config.steps,
                record_every=config.log_every,
                yield_every=config.checkpoint_every,
                stop=interrupted.is_set,
            )
            for carry, records in found:
                if records:
                    self._consume(carry, records, last, compiled, means, best, consumers)
                    last = carry.steps
                checkpoints(carry, {})
                if all(name in self._ends for name in self._names):  # all have diverged
                    break
            if interrupted.is_set() and carry.steps < config.steps:
                return True
        self._finish(carry)
        return False

    def _begin(self) -> tuple[SweepCarry, list[int]]:
        checkpoint.remove_unfinished(self._checkpoints)
        if not checkpoint.steps_saved(self._checkpoints):
            return initial_sweep(self._lanes), [0] * len(self._names)
        identity = sweep_identity(self._saved, self._lanes)
        carry, positions = restore_sweep(self._lanes, lambda: initial_sweep(self._lanes), self._checkpoints, identity)
        for lane, reason in carry.diverged.items():
            self._ends.setdefault(self._names[lane], _diverged(reason))
        return carry, positions

    def _earlier(self, steps: int) -> tuple[list[EpisodeMeans], list[Any]]:
        """Means over episodes and best evaluations of the records so far, for each lane."""
        means, best = [], []
        for folder in self._folders:
            records = [record for record in read_jsonl(folder / METRICS) if record["step"] <= steps]
            means.append(EpisodeMeans(WINDOW * self._config.log_every, records))
            best.append(keep_best(self._lanes.parts, folder, best_of(iter(records))))
        return means, best

    def _consume(
        self,
        carry: SweepCarry,
        records: Sequence[Record | None],
        last: int | None,
        compiled: Compilations,
        means: Sequence[EpisodeMeans],
        best: Sequence[Callable[[Any, Record], None]],
        consumers: Sequence[Callable[[int, Record], None]],
    ) -> None:
        due = is_due(self._config, carry.steps, last)
        state_of = lane_states(self._lanes, carry) if due else None
        for lane, name in enumerate(self._names):
            record = records[lane]
            if record is None:
                self._note(carry, lane)
                continue
            record = self._lanes.record(lane, record)
            record |= means[lane].of(record)
            if state_of is not None:
                state = state_of(lane)
                record |= evaluation_of(state, self._lanes.lanes[lane].config, self._evaluate)
                best[lane](state, record)
            record = plain(record | compiled.record())
            for consume in consumers:
                consume(lane, record)
            self._newest[name] = record
        self._show(self._newest, self._ends)

    def _note(self, carry: SweepCarry, lane: int) -> None:
        name = self._names[lane]
        if name in self._ends:
            return
        self._ends[name] = _diverged(carry.diverged[lane])
        self._report(f"warning: {name}: {carry.diverged[lane]}")
        note_diverged(self._saved, {name: carry.diverged[lane]})

    def _finish(self, carry: SweepCarry) -> None:
        """Write the parameters and the evaluation of each lane that has not diverged; remove the checkpoints."""
        state_of = lane_states(self._lanes, carry)
        for lane, (name, folder) in enumerate(zip(self._names, self._folders, strict=True)):
            if name in self._ends:
                continue
            config, state = self._lanes.lanes[lane].config, state_of(lane)
            save_parameters(self._lanes.parts, state, folder / PARAMETERS)
            scaling, seed = normalization.NO_SCALING, evaluation_seed(config.seed)
            result = self._evaluate(state.agent, scaling, config.evaluation_episodes, seed, 0.0)
            write_json(folder / EVALUATION, result)  # a run with this file has ended
            self._ends[name] = result
            self._show(self._newest, self._ends)
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        with contextlib.suppress(OSError):  # it has the checkpoints of another program
            self._checkpoints.parent.rmdir()


def _diverged(reason: str) -> str:
    return f"diverged: {reason}"


def _in_processes(saved: SavedSweep, show: Show, report: Report, given: Mapping[str, Any]) -> LaneEnds:
    """Run the lanes as processes; lanes that have ended are not run again."""
    ended: LaneEnds = {}
    jobs: dict[str, Job] = {}
    for lane in saved.grid.lanes:
        folder = saved.folder / lane.name
        if (folder / EVALUATION).is_file():
            ended[lane.name] = read_json(folder / EVALUATION)
        else:
            jobs[lane.name] = Job(lane.config, folder, resumes=(folder / "config.json").is_file())
    found = run_side_by_side(
        jobs,
        lambda newest, ends: show(newest, {**ended, **ends}),
        lambda name, text: report(f"{name}: {text}"),
        given,
    )
    diverged = {name: end for name, end in found.items() if isinstance(end, str) and "has diverged" in end}
    note_diverged(saved, diverged)
    ends = {lane.name: {**ended, **found}.get(lane.name) for lane in saved.grid.lanes}
    if None in ends.values():
        report(f"interrupted, saved; continue with: {resume_command(saved.folder)}")
    return ends
