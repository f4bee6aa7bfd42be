"""Progress of a run: a panel on a terminal, a line every few seconds elsewhere."""

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from ..loops.learning import Record
from ..runs.config import RunConfig
from ..runs.pretrain_config import PretrainConfig
from .panel import CURVE, WIDTH, duration, panel

if TYPE_CHECKING:
    from rich.live import Live

EVERY = 0.5  # seconds between two drawings of the panel: drawing takes milliseconds of the loop's own time
EVERY_PLAIN = 10.0  # and between two lines elsewhere
RECENT = 20  # drawings over which the speed is taken


class Progress:
    """Progress of a run on the terminal; a context manager that leaves the last state standing.

    A terminal that cannot be written to does not disturb the run; nothing is shown then.
    """

    def __init__(self, config: RunConfig | PretrainConfig, *, quiet: bool) -> None:
        """Start without output.

        Args:
            config: Config of the run.
            quiet: Whether to show no progress; messages are still shown.
        """
        self._config, self._quiet = config, quiet
        self._stream = Unfailing(sys.stderr)
        self._live = live_display(self._stream) if not quiet and is_terminal(sys.stderr) else None
        self._resolved: dict[str, Any] = {}
        self._record: Record = {}
        self._probed: Record = {}  # the newest probes, which few records have
        self._shown, self._said_last = -EVERY_PLAIN, False
        self._moments: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._curve: list[
            float | None
        ] = []  # at each CURVE-th part of the run, up to now: the mean return, or the probe

    def begin(self, folder: os.PathLike[str], resolved: Mapping[str, Any]) -> None:
        """Show the begin of the run in ``folder`` with the resolved config."""
        self._resolved = {**resolved, "folder": folder}
        if self._live is not None:
            self._live.start()
            self._draw("compiling")

    def show(self, record: Record) -> None:
        """Show one record, unless the last one was shown a moment ago."""
        step, steps = record["step"], self._config.steps
        if isinstance(self._config, PretrainConfig):
            self._probed |= {name: value for name, value in record.items() if name.startswith("probe/")}
            record = {**record, **self._probed}
        value = "probe/few_labels" if isinstance(self._config, PretrainConfig) else "return_mean"
        at, mean = min(step * CURVE // steps, CURVE - 1), record.get(value)
        self._curve += [mean if self._curve else None] * (at - len(self._curve))
        self._curve[at:] = [mean]
        self._record, self._said_last, now = record, False, time.monotonic()
        if self._quiet or (now - self._shown < (EVERY_PLAIN if self._live is None else EVERY) and step < steps):
            return
        self._shown = now
        self._moments.append((record["seconds"], step))
        left = f"{duration((steps - step) / self._speed())} left" if step < steps else "evaluating"
        if self._live is None:
            line = _pretraining_line if isinstance(self._config, PretrainConfig) else _line
            self._stream.write(f"{line(record, steps, left)}\n")
            self._stream.flush()
        else:
            self._draw(left)

    def say(self, message: str) -> None:
        """Show a message on a line of its own, above the panel where there is one."""
        if self._live is not None and self._live.is_started:
            self._said_last = True
            self._live.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(f"{message}\n")
            self._stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None and self._live.is_started:
            # What was said last, as that a run was interrupted and saved, is to stand at the end: the panel goes.
            self._live.transient = self._said_last
            if not self._said_last:
                self._draw("")
            self._live.stop()

    def _draw(self, left: str) -> None:
        assert self._live is not None
        console = self._live.console
        curve = [] if console.options.ascii_only else self._curve
        speed = self._speed() if self._moments else None
        width = min(max(console.width - 2, 20), WIDTH)  # the ^C that a terminal echoes must not wrap: rich counts lines
        drawn = panel(self._config, self._resolved, self._record, width=width, left=left, speed=speed, curve=curve)
        self._live.update(drawn, refresh=True)

    def _speed(self) -> float:
        """Steps per second over the last drawings: what the start and compiling took wears off."""
        (before, first), (seconds, step) = self._moments[0], self._moments[-1]
        if seconds <= before:
            return max(float(self._record["steps_per_second"]), 1e-9)
        return max((step - first) / (seconds - before), 1e-9)


def tell(text: str) -> None:
    """Prints on stdout; that nobody reads there (a closed pipe) is no fault of the run."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        sys.stdout = None  # or Python would try once more when it ends, and complain


class Unfailing:
    """Stream that is written to until that fails once, and nowhere from then on."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._failed = stream, stream is None

    def write(self, text: str) -> int:
        """Write a text."""
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt("flush")

    def _attempt(self, name: str, *arguments: str) -> None:
        if self._failed:
            return
        try:
            getattr(self._stream, name)(*arguments)
        except (OSError, ValueError):  # ValueError: it is closed
            self._failed = True

    def __getattr__(self, name: str) -> Any:  # isatty, fileno and encoding, which rich asks for
        return getattr(self._stream, name)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it; asked here, since rich takes FORCE_COLOR for a terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def live_display(stream: Unfailing) -> "Live | None":
    """The place of the panel; None on a terminal that cannot be drawn on (TERM=dumb)."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=cast(TextIO, stream))
    if not console.is_interactive:
        return None
    # No thread draws beside the training; what others print goes above the panel, unless it goes elsewhere.
    return Live(console=console, auto_refresh=False, redirect_stdout=is_terminal(sys.stdout))


def _line(record: Record, steps: int, left: str) -> str:
    mean = "-" if record["return_mean"] is None else f"{record['return_mean']:.1f}"
    learning = "loss -" if record["learner_steps"] else "not learning yet"
    if record["loss"] is not None:
        distance = next(value for name, value in record.items() if name.startswith("target_distance/"))
        learning = f"loss {record['loss']:.3g}  target distance {distance:.2g}"
    return (
        f"{record['step']:>9,} / {steps:,} steps  {record['steps_per_second']:,.0f}/s"
        f"  {left}  return {mean} (last 100)  epsilon {record['epsilon']:.2f}  {learning}"
    )


def _pretraining_line(record: Record, steps: int, left: str) -> str:
    probe = f"  probe {record['probe/few_labels']:.3f} (10 labels a class)" if "probe/few_labels" in record else ""
    return (
        f"{record['step']:>9,} / {steps:,} steps  {record['steps_per_second']:,.1f}/s  {left}{probe}"
        f"  spread {record['projection_spread']:.2f}  loss {record['loss']:.3g}"
    )
