"""Drive of a loop: passes its carries and records to the consumers until it ends or is interrupted."""

import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from ..environments.types import EnvironmentFailure, in_short
from ..loops.learning import Record
from . import checkpoint
from .compile_time import compilations
from .consumers import (
    SAVES_THAT_MAY_FAIL,
    Callback,
    Carry,
    Checkpoints,
    Consumer,
    Report,
    of_callbacks,
    of_records,
    of_warnings,
)
from .files import read_json
from .folders import resume_command
from .interrupts import interrupts
from .loggers import open_loggers
from .records import JsonlWriter, plain

CHECKPOINTS = "checkpoints"  # folder in the folder of a run
METRICS = "metrics.jsonl"
AnyCarry = TypeVar("AnyCarry", bound=Carry)


class RunFields(Protocol):
    """Fields shared by the configs of all runs."""

    @property
    def steps(self) -> int:
        """Number of the last step."""

    @property
    def checkpoint_every(self) -> int:
        """Number of steps between two checkpoints."""

    @property
    def loggers(self) -> tuple[str, ...]:
        """Names of the writers of metrics."""


def drive(
    config: RunFields,
    carry: AnyCarry,
    folder: pathlib.Path,
    metrics_bytes: int,
    *,
    loop: Callable[[AnyCarry, Callable[[], bool]], Iterator[tuple[AnyCarry, Record]]],
    save: Callable[[AnyCarry, int], None],
    watch: Callable[[Any, Record], Iterator[str]],
    on_record: Callable[[Record], None],
    report: Report,
    also: Sequence[Consumer] = (),
    callbacks: Sequence[Callback] = (),
    may_fail: int = SAVES_THAT_MAY_FAIL,
) -> tuple[AnyCarry, bool]:
    """Run a loop to its end or to an interrupt.

    Args:
        config: Config of the run.
        carry: Initial carry.
        folder: Folder of the run, with its ``config.json``.
        metrics_bytes: Length to which the metrics file is truncated at the start.
        loop: Function from a carry and a stop function to the iterator of the loop.
        save: Function that saves a carry, given the length of the metrics file.
        watch: Function from a carry and a record to warnings.
        on_record: Function called with each record.
        report: Function called with each message.
        also: Additional consumers.
        callbacks: Functions of a carry and a record; a function that returns True ends the loop.
        may_fail: Number of consecutive failed saves that stops the run.

    Returns:
        Last carry, and whether the loop was interrupted.

    Raises:
        EnvironmentFailure, OSError: as raised by the loop and the writers.
    """
    stopped = threading.Event()
    saved = carry.steps if checkpoint.steps_saved(folder / CHECKPOINTS) else -1
    with (
        interrupts() as interrupted,
        JsonlWriter(folder / METRICS, at=metrics_bytes) as metrics,
        open_loggers(config.loggers, folder, carry.steps, read_json(folder / "config.json"), report) as log,
        compilations() as compiled,
    ):
        checkpoints = Checkpoints(
            lambda carry: save(carry, metrics.position()),
            steps=config.steps,
            every=config.checkpoint_every,
            saved=saved,
            interrupted=interrupted,
            report=report,
            may_fail=may_fail,
        )
        consumers: list[Consumer] = [
            of_records(metrics.write),
            of_records(log),
            of_records(on_record),
            of_warnings(watch, compiled, report),
            *also,
            checkpoints,
            of_callbacks(callbacks, stopped, checkpoints.save),
        ]
        checkpoints.save(carry)
        found = loop(carry, lambda: interrupted.is_set() or stopped.is_set())
        try:
            for carry, record in found:
                record = plain(record | compiled.record()) if record else record
                for consume in consumers:
                    consume(carry, record)
        except EnvironmentFailure as failure:  # A SIGTERM to all processes may reach the workers first.
            if not (checkpoints.save_at_failure(carry, failure) and interrupted.is_set()):
                raise
        if stopped.is_set():
            checkpoints.save(carry)
            return carry, False
        return carry, interrupted.is_set() and carry.steps < config.steps


def evaluation_if_ended(folder: pathlib.Path, report: Report, way_on: str = "") -> dict[str, Any] | None:
    """Evaluation of a run that has ended; for another run, remove partial checkpoints and return None."""
    checkpoint.remove_unfinished(folder / CHECKPOINTS)
    if not (folder / "evaluation.json").exists():
        return None
    report(f"{folder} has ended; nothing is left to do.{way_on}")
    return dict(read_json(folder / "evaluation.json"))


def draw_safely(draw: Callable[[], None], report: Report) -> None:
    """Draw a figure with matplotlib's default settings; report a figure that cannot be drawn and continue."""
    import matplotlib  # slow to import; no window system is used

    try:
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            draw()
    except Exception as error:  # any kind: fonts, LaTeX, a full disk
        report(f"warning: a picture could not be drawn: {in_short(error)}")


def add_way_on(error: Exception, folder: pathlib.Path) -> None:
    """Add a note to the error that ended a run, with the kept checkpoint and the command that continues the run.

    A ValueError or TypeError before the first learning gets no note, because continuing would repeat it.
    """
    saved = checkpoint.steps_saved(folder / CHECKPOINTS)
    if isinstance(error, ValueError | TypeError) and saved[-1:] in ([], [0]):
        return
    kept = f"the checkpoint of step {saved[-1]} is kept" if saved else "nothing was saved yet"
    error.add_note(f"{kept}; continue with: {resume_command(folder)}")
