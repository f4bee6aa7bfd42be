"""Runs of one config over several seeds, in processes side by side."""

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..loops.learning import Record
from ..runs import side_by_side
from ..runs.config import RunConfig
from ..runs.folders import prepare_folder
from ..runs.side_by_side import Job, run_side_by_side
from .display import Unfailing, make_display
from .progress import EVERY_PLAIN

if TYPE_CHECKING:
    from rich.text import Text

Ends = side_by_side.Ends[int]  # by seed


def train_seeds(
    config: RunConfig,
    folder: pathlib.Path,
    seeds: int,
    show: Callable[[Mapping[int, Record], Ends], None],
    say: Callable[[str], None],
    given: Mapping[str, Any] = {},
    at_a_time: int | None = None,
) -> Ends:
    """Train the seeds from that of the config on, each in a process and in a folder ``seedN`` of its own.

    Ctrl-C reaches all processes: each saves its run, and no other begins.

    Args:
        config: Config of the run with the first seed.
        folder: Folder of the runs, new or empty.
        seeds: Number of seeds.
        show: Function called with the newest record of each seed, and the ends so far.
        say: Function called with each message.
        given: Objects that a program gave, by their text in the config; processes must be able to import them.
        at_a_time: Number of processes that run together; by default one for each core.

    Returns:
        Seed to the evaluation of its run, to the text of its error, or None where it was interrupted.

    Raises:
        ValueError: if there are fewer than two seeds, or the folder is neither new nor empty.
    """
    if seeds < 2:
        raise ValueError(f"seeds: got {seeds}; expected an integer >= 2. A single seed is --seed.")
    prepare_folder(folder)
    configs = [dataclasses.replace(config, seed=config.seed + number) for number in range(seeds)]
    jobs = {one.seed: Job(one, folder / f"seed{one.seed}") for one in configs}
    return run_side_by_side(jobs, show, lambda seed, text: say(f"seed {seed}: {text}"), given, at_a_time)


class SeedsProgress:
    """Progress of several seeds: a line for each, in place where that is possible, and every few seconds elsewhere."""

    def __init__(self, config: RunConfig, seeds: int, *, quiet: bool) -> None:
        """Start without output."""
        self._config, self._seeds, self._quiet = config, range(config.seed, config.seed + seeds), quiet
        self._stream = Unfailing(sys.stderr)
        self._display = None if quiet else make_display(self._stream)
        self._shown, self._text = -EVERY_PLAIN, ""

    def show(self, newest: Mapping[int, Record], ends: Ends) -> None:
        """Show a line for each seed, unless they were shown a moment ago."""
        if self._quiet:
            return
        text = "\n".join(lines(self._config, newest, ends, self._seeds))
        if self._display is not None and text != self._text:
            self._display.draw(_unwrapped(text))
        elif self._display is None and (time.monotonic() - self._shown >= EVERY_PLAIN or len(ends) == len(self._seeds)):
            self._shown = time.monotonic()
            self.say(text)
        self._text = text

    def say(self, message: str) -> None:
        """Show a message: below the lines where they are in place, and above them once they change."""
        if self._display is None:
            self._stream.write(f"{message}\n")
            self._stream.flush()
        else:
            self._display.say(message)

    def close(self) -> None:
        """Leave the last lines in place."""
        if self._display is not None:
            self._display.close(_unwrapped(self._text))


def _unwrapped(text: str) -> "Text":
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def lines(config: RunConfig, newest: Mapping[int, Record], ends: Ends, seeds: Sequence[int]) -> list[str]:
    """Line of progress for each seed: steps and mean return of the last 20 episodes, or its end.

    >>> lines(RunConfig(steps=2000), {0: {"step": 500, "return_mean_20": 20.0}}, {1: "no"}, [0, 1, 2])
    ['seed 0         500 / 2,000 steps   return 20.0 (last 20)', 'seed 1   failed: no', 'seed 2   waiting']
    """
    found = []
    for seed in seeds:
        record, end = newest.get(seed), ends.get(seed, "running")
        if isinstance(end, dict):
            text = f"return {end['mean']:.1f} (greedy)"
        elif seed in ends:
            text = "interrupted, saved" if end is None else f"failed: {end}"
        elif record is None:
            text = "waiting"
        else:
            mean = "-" if record["return_mean_20"] is None else f"{record['return_mean_20']:.1f}"
            text = f"{record['step']:>9,} / {config.steps:,} steps   return {mean} (last 20)"
        found.append(f"seed {seed}   {text}")
    return found
