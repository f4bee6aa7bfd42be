"""What a person sees while a run goes on: one line that is written over, or a line now and then."""

import sys
import time
from types import TracebackType

from .config import RunConfig
from .host_loop import Record

EVERY = 0.2  # seconds between two lines on a terminal
EVERY_PLAIN = 10.0  # and elsewhere


class Progress:
    """Shows records as they come; a context manager that leaves the last line standing."""

    def __init__(self, config: RunConfig, *, quiet: bool) -> None:
        self._config, self._quiet = config, quiet
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0
        self._open_line = False

    def show(self, record: Record) -> None:
        """Shows one record, unless the last one was shown a moment ago."""
        now, ended = time.monotonic(), record["step"] >= self._config.steps
        if self._quiet or (now - self._shown < (EVERY if self._terminal else EVERY_PLAIN) and not ended):
            return
        self._shown = now
        line = _line(record, self._config.steps)
        print(f"\r\x1b[2K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        self._open_line = self._terminal

    def say(self, message: str) -> None:
        """Says something on a line of its own."""
        self._close_line()
        print(message, file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_line()

    def _close_line(self) -> None:
        if self._open_line:
            print(file=sys.stderr)
            self._open_line = False


def _line(record: Record, steps: int) -> str:
    left = (steps - record["step"]) / record["steps_per_second"]
    mean = "-" if record["return_mean"] is None else f"{record['return_mean']:.1f}"
    learning = "not learning yet"
    if record["loss"] is not None:
        distance = next(value for name, value in record.items() if name.startswith("target_distance/"))
        learning = f"loss {record['loss']:.3g}  target distance {distance:.2g}"
    return (
        f"{record['step']:>9,} / {steps:,} steps  {record['steps_per_second']:,.0f}/s"
        f"  {left:.0f} s left  return {mean} (last 100)  epsilon {record['epsilon']:.2f}  {learning}"
    )
