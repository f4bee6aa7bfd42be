"""Run of one compiled program of a sweep, with the files of its lanes."""

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..loops import normalization
from ..loops.carry import Carry
from ..loops.evaluation import evaluation_seed
from ..loops.learning import Record
from ..loops.sweep import SweepCarry, sweep_loop
from . import checkpoint, health
from .compile_time import Compilations, compilations
from .consumers import Checkpoints, Consumer, Report
from .drive import CHECKPOINTS, METRICS
from .evaluation import PARAMETERS, best_of, evaluation_of, is_due, keep_best, make_evaluation, save_parameters
from .files import read_json, write_json
from .interrupts import interrupts
from .loggers import open_loggers
from .records import WINDOW, EpisodeMeans, plain, read_jsonl
from .side_by_side import Ends
from .sweep_lanes import Lanes, initial_sweep, lane_states
from .sweep_saving import LaneMetrics, SavedSweep, note_diverged, restore_sweep, save_sweep, sweep_identity

LaneEnds = Ends[str]  # by the name of the lane; a text for a lane that has diverged or failed
Show = Callable[[Mapping[str, Record], LaneEnds], None]
EVALUATION = "evaluation.json"


class Followed(NamedTuple):
    """Consumers of the records of one lane.

    Attributes:
        means: Means over its episodes.
        keep_best: Function that keeps the parameters of its best evaluation.
        watch: Warnings about its records.
        log: Loggers in addition to its metrics file.
    """

    means: EpisodeMeans
    keep_best: Consumer
    watch: health.Watch
    log: Callable[[Record], None]


class Drive:
    """Run of one compiled program of a sweep.

    Args:
        saved: Sweep.
        lanes: Lanes of the program.
        number: Number of the program, which names the folder of its checkpoints.
        newest: Newest record of each lane of the sweep; changed.
        ends: Ends of the lanes of the sweep; changed.
        show: Function called with the newest records and the ends.
        report: Function called with each message.
    """

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
        self._warned: set[str] = set()

    def run(self) -> bool:
        """Run the program to its end; return whether it was interrupted."""
        if self._all_ended():
            return False
        carry, positions = self._begin()
        metrics, config = LaneMetrics(self._folders, positions), self._config
        identity = sweep_identity(self._saved, self._lanes)

        def save(carry: SweepCarry) -> None:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            save_sweep(self._lanes, carry, self._checkpoints, metrics.positions(), identity)

        with interrupts() as interrupted, compilations() as compiled, contextlib.ExitStack() as stack:
            followed = [self._follow(lane, carry.steps, stack) for lane in range(len(self._names))]
            checkpoints = Checkpoints(
                save,
                steps=config.steps,
                every=config.checkpoint_every,
                saved=carry.steps,
                interrupted=interrupted,
                report=self._report,
            )
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
                    for lane, record in self._records(carry, records, last, compiled, followed):
                        metrics.write(lane, record)
                        followed[lane].log(record)
                    self._show(self._newest, self._ends)
                    last = carry.steps
                checkpoints(carry, {})
                if self._all_ended():  # all have diverged
                    break
            if interrupted.is_set() and carry.steps < config.steps:
                return True
        self._finish(carry)
        return False

    def _all_ended(self) -> bool:
        return all(name in self._ends for name in self._names)

    def _begin(self) -> tuple[SweepCarry, list[int]]:
        checkpoint.remove_unfinished(self._checkpoints)
        if not checkpoint.steps_saved(self._checkpoints):
            return initial_sweep(self._lanes), [0] * len(self._names)
        identity = sweep_identity(self._saved, self._lanes)
        carry, positions = restore_sweep(self._lanes, lambda: initial_sweep(self._lanes), self._checkpoints, identity)
        for lane, reason in carry.diverged.items():
            self._ends.setdefault(self._names[lane], diverged_text(reason))
        return carry, positions

    def _follow(self, lane: int, steps: int, stack: contextlib.ExitStack) -> Followed:
        """Consumers of the records of a lane, which begin with its records so far."""
        folder, config = self._folders[lane], self._lanes.lanes[lane].config
        records = [record for record in read_jsonl(folder / METRICS) if record["step"] <= steps]
        replay = self._lanes.parts.replay
        # In the carry of a lane, a function that returns the state stands for the replay.
        lazy = replay._replace(rewards=lambda state_of: replay.rewards(state_of()))
        written = read_json(folder / "config.json")
        return Followed(
            EpisodeMeans(WINDOW * config.log_every, records),
            keep_best(self._lanes.parts, folder, best_of(iter(records))),
            health.Watch(lazy, config.loop.draw.discount.extremes[1], steps),
            stack.enter_context(open_loggers(config.loggers, folder, steps, written, self._report)),
        )

    def _records(
        self,
        carry: SweepCarry,
        records: Sequence[Record | None],
        last: int | None,
        compiled: Compilations,
        followed: Sequence[Followed],
    ) -> Iterator[tuple[int, Record]]:
        """Yield the complete record of each lane that has not diverged, and report its warnings."""
        due = is_due(self._config, carry.steps, last)
        state_of = lane_states(self._lanes, carry) if due else None
        for lane, name in enumerate(self._names):
            record = records[lane]
            if record is None:
                self._note(carry, lane)
                continue
            record = self._lanes.record(lane, record)
            record |= followed[lane].means.of(record)
            if state_of is not None:
                state = state_of(lane)
                record |= evaluation_of(state, self._lanes.lanes[lane].config, self._evaluate)
                followed[lane].keep_best(state, record)
            record = plain(record | compiled.record())
            yield lane, record
            self._newest[name] = record
            self._look(carry, lane, record, followed[lane].watch)

    def _look(self, carry: SweepCarry, lane: int, record: Record, watch: health.Watch) -> None:
        """Report the warnings of a lane; a warning that another lane has had is not repeated."""
        nothing: Any = ()
        rows: Any = functools.partial(_rows_of, carry, lane)
        seen = Carry(carry.key, nothing, (), rows, nothing, {}, carry.statistics[lane], steps=carry.steps)
        for text in watch(seen, record):
            kind = text.partition(":")[0][:20]
            if kind not in self._warned:
                self._warned.add(kind)
                self._report(f"warning: {self._names[lane]}: {text}")

    def _note(self, carry: SweepCarry, lane: int) -> None:
        name = self._names[lane]
        if name in self._ends:
            return
        self._ends[name] = diverged_text(carry.diverged[lane])
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


def ended_lanes(saved: SavedSweep) -> LaneEnds:
    """Ends of the lanes that have been evaluated or have diverged."""
    ends: LaneEnds = {}
    for lane in saved.grid.lanes:
        path = saved.folder / lane.name / EVALUATION
        if path.is_file():
            ends[lane.name] = read_json(path)
        elif lane.name in saved.diverged:
            ends[lane.name] = diverged_text(saved.diverged[lane.name])
    return ends


def diverged_text(reason: str) -> str:
    """End of a lane that has diverged."""
    return f"diverged: {reason}"


def _rows_of(carry: SweepCarry, lane: int) -> Any:
    """State of the replay of a lane with the arrays that its rewards are read from."""
    replay = carry.arrays.replay
    return replay._replace(reward=np.asarray(replay.reward[lane]), boundary=np.asarray(replay.boundary[lane]))
