"""Consumers of a run: functions ``(carry, record) -> None``, called in turn with everything that the loop yields."""

import pathlib
import threading
from collections.abc import Callable

from ..environments.types import EnvironmentFailure
from ..loops.carry import Carry
from ..loops.learning import Record
from . import checkpoint
from .build import Parts
from .compile_time import Compilations
from .config import RunConfig
from .health import Watch
from .interrupts import postponed
from .saving import save_carry

Consumer = Callable[[Carry, Record], None]
Report = Callable[[str], None]
SAVES_THAT_MAY_FAIL = 3  # in succession, before the run stops


def of_records(function: Callable[[Record], None]) -> Consumer:
    """Consumer that calls a function with each record; a carry that is yielded without one is passed over."""

    def consume(carry: Carry, record: Record) -> None:
        del carry
        if record:
            function(record)

    return consume


def of_warnings(watch: Watch, compiled: Compilations, report: Report) -> Consumer:
    """Consumer that reports the warnings of a record."""

    def consume(carry: Carry, record: Record) -> None:
        if record:
            for text in (*watch(carry, record), *compiled.warnings()):
                report(f"warning: {text}")

    return consume


class Checkpoints:
    """Consumer that saves the carry: every ``checkpoint_every`` steps, at an interrupt and at the end.

    Args:
        parts: Parts of the run.
        folder: Folder of the checkpoints.
        saved: Step of the checkpoint that the run continues from; -1 for none.
        position: Function that returns the length of the metrics file, once that is on the disk.
        interrupted: Event that an interrupt sets; an interrupt during a save does no more than that.
        report: Function called with a message when a save has failed and the run continues.
    """

    def __init__(
        self,
        parts: Parts,
        folder: pathlib.Path,
        saved: int,
        position: Callable[[], int],
        interrupted: threading.Event,
        report: Report,
    ) -> None:
        self._parts, self._folder, self._position = parts, folder, position
        self._interrupted, self._report = interrupted, report
        self._mapped_for = _mapped_for(parts.config)
        # The rows that a mapped replay overwrites are in the checkpoints only while they are made in time.
        self._may_fail = SAVES_THAT_MAY_FAIL if self._mapped_for is None else 1
        self._saved, self._failures = saved, 0

    def __call__(self, carry: Carry, record: Record) -> None:
        """Save the carry where a checkpoint is due.

        Raises:
            OSError: if the save failed, and so did the ones before it, or the run was interrupted.
        """
        del record
        config, interrupted = self._parts.config, self._interrupted
        due = carry.steps // config.checkpoint_every > self._saved // config.checkpoint_every
        if not (due or interrupted.is_set() or carry.steps >= config.steps):
            return
        try:
            self.save(carry)
        except OSError as error:
            self._failures += 1
            if self._failures == self._may_fail or interrupted.is_set():
                raise
            self._report(f"{error}; the run continues, and the checkpoint of step {self._saved} is kept")

    def save(self, carry: Carry) -> None:
        """Save the carry, unless its step is saved already.

        Raises:
            OSError: if the disk is full or read-only.
        """
        if carry.steps <= self._saved:
            return
        with postponed(self._interrupted):
            save_carry(carry, self._parts.environment, self._folder, self._position(), mapped_for=self._mapped_for)
        self._saved, self._failures = carry.steps, 0

    def save_at_failure(self, carry: Carry, failure: EnvironmentFailure) -> bool:
        """Save the carry before the step that failed, and return whether it is saved; a note has the error if not."""
        if not failure.intact:
            return False
        try:
            self.save(carry)
        except OSError as error:
            failure.add_note(str(error))
            return False
        return True


def _mapped_for(config: RunConfig) -> int | None:
    """Number of steps per environment that a kept checkpoint must cover; None for a replay in memory."""
    if config.replay_storage != "mmap":
        return None
    return checkpoint.KEEP * -(-config.checkpoint_every // config.num_envs) + 1
