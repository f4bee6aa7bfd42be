"""Consumers of a run: functions ``(carry, record) -> None``, called in sequence with every value the loop yields."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from ..environments.types import EnvironmentFailure
from ..loops.learning import Record
from .compile_time import Compilations
from .interrupts import postponed


class Carry(Protocol):
    """Carry of any loop."""

    @property
    def steps(self) -> int:
        """Number of steps so far."""


Consumer = Callable[[Carry, Record], None]
Callback = Callable[[Any, Record], bool | None]
Report = Callable[[str], None]
SAVES_THAT_MAY_FAIL = 3  # number of consecutive failed saves that stops the run


def of_records(function: Callable[[Record], None]) -> Consumer:
    """Consumer that calls a function with each record and ignores carries without a record."""

    def consume(carry: Carry, record: Record) -> None:
        del carry
        if record:
            function(record)

    return consume


def of_warnings(watch: Callable[[Carry, Record], Iterator[str]], compiled: Compilations, report: Report) -> Consumer:
    """Consumer that reports the warnings of a record."""

    def consume(carry: Carry, record: Record) -> None:
        if record:
            for text in (*watch(carry, record), *compiled.warnings()):
                report(f"warning: {text}")

    return consume


def of_callbacks(callbacks: Sequence[Callback], stopped: threading.Event, save: Callable[[Carry], None]) -> Consumer:
    """Consumer that calls user-defined functions with each record.

    Args:
        callbacks: Functions of a carry and a record; a function that returns True ends the run, followed by evaluation.
        stopped: Event that is set if a function returns True.
        save: Function that saves the carry before an exception of a callback is re-raised.
    """

    def consume(carry: Carry, record: Record) -> None:
        for callback in callbacks if record else ():
            try:
                stops = callback(carry, record)
            except BaseException:
                save(carry)
                raise
            if stops:
                stopped.set()

    return consume


class Checkpoints:
    """Consumer that saves the carry at regular intervals, at an interrupt and at the end.

    Args:
        write: Function that saves a carry.
        steps: Number of the last step of the run.
        every: Number of steps between two checkpoints.
        saved: Step of the checkpoint from which the run continues; -1 for none.
        interrupted: Event that an interrupt sets; an interrupt during a save only sets this event.
        report: Function called with a message if a save fails and the run continues.
        may_fail: Number of consecutive failed saves that stops the run.
    """

    def __init__(
        self,
        write: Callable[[Any], None],
        *,
        steps: int,
        every: int,
        saved: int,
        interrupted: threading.Event,
        report: Report,
        may_fail: int = SAVES_THAT_MAY_FAIL,
    ) -> None:
        self._write, self._steps, self._every = write, steps, every
        self._interrupted, self._report, self._may_fail = interrupted, report, may_fail
        self._saved, self._failures = saved, 0

    def __call__(self, carry: Carry, record: Record) -> None:
        """Save the carry if a checkpoint is due.

        Raises:
            OSError: if the save fails as the last of ``may_fail`` consecutive saves, or after an interrupt.
        """
        del record
        interrupted = self._interrupted
        due = carry.steps // self._every > self._saved // self._every
        if not (due or interrupted.is_set() or carry.steps >= self._steps):
            return
        try:
            self.save(carry)
        except OSError as error:
            self._failures += 1
            if self._failures == self._may_fail or interrupted.is_set():
                raise
            self._report(f"{error}; the run continues, and the checkpoint of step {self._saved} is kept")

    def save(self, carry: Carry) -> None:
        """Save the carry, unless this step has been saved already.

        Raises:
            OSError: if the disk is full or read-only.
        """
        if carry.steps <= self._saved:
            return
        with postponed(self._interrupted):
            self._write(carry)
        self._saved, self._failures = carry.steps, 0

    def save_at_failure(self, carry: Carry, failure: EnvironmentFailure) -> bool:
        """Save the carry before a failed step; return whether it is saved. If saving fails, a note has the error."""
        if not failure.intact:
            return False
        try:
            self.save(carry)
        except OSError as error:
            failure.add_note(str(error))
            return False
        return True
