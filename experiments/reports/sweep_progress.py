"""Progress of a sweep: a line for each setting, in place where that is possible, and one line elsewhere."""

import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..loops.learning import Record
from ..runs.sweep_grid import Grid, setting_of
from .display import Unfailing, make_display
from .panel import duration
from .progress import EVERY, EVERY_PLAIN, RECENT

if TYPE_CHECKING:
    from rich.text import Text

SHOWN = 20  # settings with a line of their own


class SweepProgress:
    """Progress of a sweep; a context manager that leaves the last lines in place."""

    def __init__(self, grid: Grid, *, quiet: bool) -> None:
        """Start without output.

        Args:
            grid: Grid of the sweep.
            quiet: Whether to show no progress; messages are still shown.
        """
        self._grid, self._quiet = grid, quiet
        self._total = sum(lane.config.steps for lane in grid.lanes)
        self._settings: dict[str, list[str]] = {}
        for lane in grid.lanes:
            self._settings.setdefault(setting_of(lane), []).append(lane.name)
        self._stream = Unfailing(sys.stderr)
        self._display = None if quiet else make_display(self._stream)
        self._shown, self._lines = -EVERY_PLAIN, list[str]()
        self._moments: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def show(self, newest: Mapping[str, Record], ends: Mapping[str, Any]) -> None:
        """Show the newest records of the lanes, unless they were shown a moment ago."""
        now, steps = time.monotonic(), sum(record["step"] for record in newest.values())
        ended = len(ends) == len(self._grid.lanes)
        if steps and (not self._moments or steps > self._moments[-1][1]):
            compiled = max(record.get("compile_seconds", 0.0) for record in newest.values())
            self._moments.append((now - compiled, steps))
        if self._quiet or (now - self._shown < (EVERY_PLAIN if self._display is None else EVERY) and not ended):
            return
        self._shown = now
        self._lines = [self._summary(steps, newest, ends), *lines(self._settings, newest, ends)]
        if self._display is not None:
            self._display.draw(_unwrapped(self._lines[: SHOWN + 1]))
        else:
            self.say(self._lines[0] + best(self._settings, newest))

    def say(self, message: str) -> None:
        """Show a message: below the lines where they are in place."""
        if self._display is None:
            self._stream.write(f"{message}\n")
            self._stream.flush()
        else:
            self._display.say(message)

    def __enter__(self) -> "SweepProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.close(_unwrapped(self._lines[: SHOWN + 1]))

    def _summary(self, steps: int, newest: Mapping[str, Record], ends: Mapping[str, Any]) -> str:
        text = f"{steps:,} / {self._total:,} steps of {len(self._grid.lanes)} lanes"
        if ends:
            text += f", {len(ends)} ended"
        if steps == self._total and len(ends) < len(self._grid.lanes):
            text += "  evaluating"
        elif (speed := self._speed(newest)) and steps < self._total:
            text += f"  {speed:,.0f}/s  {duration((self._total - steps) / speed)} left"
        return text

    def _speed(self, newest: Mapping[str, Record]) -> float:
        """Steps per second of all lanes without compilation; 0 before the first learner step."""
        if not any(record["learner_steps"] for record in newest.values()):
            return 0.0
        if len(self._moments) > 1:
            (before, first), (after, last) = self._moments[0], self._moments[-1]
            return max(last - first, 1) / max(after - before, 1e-9)
        speeds = 0.0
        for record in newest.values():
            running = record["seconds"] - record.get("compile_seconds", 0.0)
            speeds += record["steps_per_second"] * record["seconds"] / max(running, 1e-9)
        return speeds


def lines(settings: Mapping[str, Sequence[str]], newest: Mapping[str, Record], ends: Mapping[str, Any]) -> list[str]:
    """Line of each setting: median over its lanes of the mean return of 20 episodes, or of the evaluations.

    >>> newest = {"none/seed0": {"return_mean_20": 20.0}, "none/seed1": {"return_mean_20": 30.0}}
    >>> settings = {"none": ["none/seed0", "none/seed1"], "frozen": ["frozen/seed0"]}
    >>> lines(settings, newest, {"frozen/seed0": {"mean": 9.0}})
    ['none    return 25.0 (last 20, median of 2)', 'frozen  return 9.0 (greedy, median of 1)']
    """
    width = max(map(len, settings))
    found = []
    for name, lanes in settings.items():
        evaluated = [ends[lane]["mean"] for lane in lanes if isinstance(ends.get(lane), Mapping)]
        failed = sum(isinstance(ends.get(lane), str) for lane in lanes)
        running = _returns(lanes, newest)
        text = "-"
        if evaluated:
            text = f"return {statistics.median(evaluated):.1f} (greedy, median of {len(evaluated)})"
        elif running:
            text = f"return {statistics.median(running):.1f} (last 20, median of {len(running)})"
        text += f"  {failed} diverged or failed" if failed else ""
        found.append(f"{name:<{width}}  {text}")
    return found


def best(settings: Mapping[str, Sequence[str]], newest: Mapping[str, Record]) -> str:
    """Highest median of the settings, as a part of a line; empty before the first episode has ended."""
    medians = {name: statistics.median(found) for name, lanes in settings.items() if (found := _returns(lanes, newest))}
    if not medians:
        return ""
    name = max(medians, key=lambda one: medians[one])
    return f"  best {name or 'median'} {medians[name]:.1f} (last 20)"


def _returns(lanes: Sequence[str], newest: Mapping[str, Record]) -> list[float]:
    found = [newest[lane]["return_mean_20"] for lane in lanes if lane in newest]
    return [value for value in found if value is not None]


def _unwrapped(shown: Sequence[str]) -> "Text":
    from rich.text import Text

    return Text("\n".join(shown), no_wrap=True, overflow="ellipsis")
