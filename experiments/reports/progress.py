"""Progress of a run: a panel on a terminal and in a notebook, lines elsewhere."""

import os
import sys
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..loops.learning import Record
from ..runs.config import RunConfig
from ..runs.pretrain_config import PretrainConfig
from .display import Display, Unfailing, make_display
from .panel import CURVE, WIDTH, duration, panel

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY = 0.5  # seconds between two drawings of the panel, which take milliseconds of the loop's own time
EVERY_PLAIN = 10.0  # seconds between two lines elsewhere
RECENT = 20  # drawings over which the speed is taken


class Progress:
    """Progress of a run; a context manager that leaves the last state in place.

    A stream that cannot be written to does not stop the run; nothing is shown then.
    """

    def __init__(self, config: RunConfig | PretrainConfig, *, quiet: bool) -> None:
        """Start without output.

        Args:
            config: Config of the run.
            quiet: Whether to show no progress; messages are still shown.
        """
        self._config, self._quiet = config, quiet
        self._stream = Unfailing(sys.stderr)
        self._display = None if quiet else make_display(self._stream)
        self._resolved: dict[str, Any] = {}
        self._record: Record = {}
        self._measured: Record = {}  # newest probes or evaluation, which few records have
        self._shown = -EVERY_PLAIN
        self._moments: deque[tuple[float, int]] = deque(maxlen=RECENT)  # seconds without compilation, and steps
        self._curve: list[float | None] = []  # return or probe at each CURVE-th part of the run so far

    def begin(self, folder: os.PathLike[str], resolved: Mapping[str, Any]) -> None:
        """Show the beginning of the run in ``folder``, with the resolved config."""
        self._resolved = {**resolved, "folder": folder}
        if self._display is not None:
            self._display.draw(self._panel(self._display, "compiling"))
        elif not self._quiet and isinstance(self._config, RunConfig) and self._config.loop.loop != "host":
            self.say(f"loop: {resolved['loop']}")

    def show(self, record: Record) -> None:
        """Show one record, unless the last one was shown a moment ago."""
        step, steps = record["step"], self._config.steps
        record = self._with_measured(record)
        self._record, now = record, time.monotonic()
        value = "probe/few_labels" if isinstance(self._config, PretrainConfig) else "return_mean_20"
        at, mean = min(step * CURVE // steps, CURVE - 1), record.get(value)
        self._curve += [mean if self._curve else None] * (at - len(self._curve))
        self._curve[at:] = [mean]
        if self._quiet or (now - self._shown < (EVERY_PLAIN if self._display is None else EVERY) and step < steps):
            return
        self._shown = now
        self._moments.append((_running_seconds(record), step))
        left = duration((steps - step) / self._speed()) if step < steps else "evaluating"
        if self._display is None:
            line = _pretraining_line if isinstance(self._config, PretrainConfig) else _line
            left = f"{left} left" if step < steps else left
            self._stream.write(f"{line(record, steps, self._speed(), left)}\n")
            self._stream.flush()
        else:
            self._display.draw(self._panel(self._display, left))

    def say(self, message: str) -> None:
        """Show a message: below the panel where there is one, and above it once the panel changes."""
        if self._display is None:
            self._stream.write(f"{message}\n")
            self._stream.flush()
        else:
            self._display.say(message)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.close(self._panel(self._display, ""))

    def _with_measured(self, record: Record) -> Record:
        self._measured |= {name: value for name, value in record.items() if name.startswith(("probe/", "greedy_"))}
        if "greedy_return" in record:
            self._measured["evaluated_at"] = record["step"]
        return {**record, **self._measured}

    def _panel(self, display: Display, left: str) -> "RenderableType":
        width = min(max(display.width - 2, 20), WIDTH)  # so that the ^C that a terminal echoes does not wrap
        speed = self._speed() if self._moments else None
        curve = [] if display.ascii_only else self._curve
        return panel(self._config, self._resolved, self._record, width=width, left=left, speed=speed, curve=curve)

    def _speed(self) -> float:
        """Steps per second without compilation, over the last drawings."""
        (before, first), (seconds, step) = self._moments[0], self._moments[-1]
        if seconds > before:
            return max((step - first) / (seconds - before), 1e-9)
        speed = float(self._record["steps_per_second"])  # since this process began or resumed the run
        if seconds > 0:
            speed *= self._record["seconds"] / seconds
        return max(speed, 1e-9)


def tell(text: str) -> None:
    """Print a text on stdout; a closed pipe there is ignored."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        sys.stdout = None  # Python would write once more when it ends, and print an error


def _running_seconds(record: Record) -> float:
    """Seconds of a run without those of compilation."""
    return float(record["seconds"]) - float(record.get("compile_seconds", 0.0))


def _line(record: Record, steps: int, speed: float, left: str) -> str:
    mean = "-" if record.get("return_mean_20") is None else f"{record['return_mean_20']:.1f}"
    evaluation = f"  evaluation {record['greedy_return']:.1f}" if record.get("greedy_return") is not None else ""
    learning = "loss -" if record["learner_steps"] else "not learning yet"
    if record["loss"] is not None:
        distance = next(value for name, value in record.items() if name.startswith("target_distance/"))
        learning = f"loss {record['loss']:.3g}  target distance {distance:.2g}"
    return (
        f"{record['step']:>9,} / {steps:,} steps  {speed:,.0f}/s  {left}"
        f"  return {mean} (last 20){evaluation}  epsilon {record['epsilon']:.2f}  {learning}"
    )


def _pretraining_line(record: Record, steps: int, speed: float, left: str) -> str:
    probe = f"  probe {record['probe/few_labels']:.3f} (10 labels a class)" if "probe/few_labels" in record else ""
    return (
        f"{record['step']:>9,} / {steps:,} steps  {speed:,.1f}/s  {left}{probe}"
        f"  spread {record['projection_spread']:.2f}  loss {record['loss']:.3g}"
    )
