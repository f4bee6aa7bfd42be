"""Runs of one config over several seeds, in processes side by side."""

import dataclasses
import multiprocessing
import os
import pathlib
import queue
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..loops.learning import Record
from ..runs import train as runs
from ..runs.config import RunConfig
from ..runs.folders import prepare_folder
from .display import Unfailing, make_display
from .progress import EVERY_PLAIN

if TYPE_CHECKING:
    from rich.text import Text

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # processes beside each other
POLL = 0.5  # seconds between two looks at processes that have said nothing

Ends = dict[int, dict[str, Any] | str | None]  # by seed: the evaluation, an error in words, or None if interrupted


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
    context = multiprocessing.get_context("spawn")
    said: Any = context.Queue()
    waiting = [dataclasses.replace(config, seed=config.seed + number) for number in range(seeds)]
    cores = at_a_time or os.cpu_count() or 1
    newest: dict[int, Record] = {}
    ends: Ends = {}
    running: dict[int, Any] = {}
    if cores > 1:
        os.environ.setdefault("XLA_FLAGS", ONE_THREAD)
    interrupted = False
    while (waiting and not interrupted) or running:
        while waiting and not interrupted and len(running) < cores:
            one = waiting.pop(0)
            process = context.Process(target=_train_one, args=(one, folder / f"seed{one.seed}", given, said))
            process.start()
            running[one.seed] = process
        try:
            _read(said, newest, ends, say)
            for seed in [seed for seed, process in running.items() if not process.is_alive()]:
                process = running.pop(seed)
                process.join()
                _drain(said, newest, ends, say)
                ends.setdefault(seed, f"its process ended with exit status {process.exitcode}")
            show(newest, ends)
        except KeyboardInterrupt:
            interrupted = True
            for process in running.values():
                _interrupt(process.pid)
    return ends


def _train_one(config: RunConfig, folder: pathlib.Path, given: Mapping[str, Any], said: Any) -> None:
    """Program of a process."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    seed = config.seed
    try:
        end: Any = runs.train(
            config, folder, lambda record: said.put((seed, record)), lambda text: said.put((seed, text)), given=given
        )
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    said.put((seed, ("end", end)))


def _read(said: Any, newest: dict[int, Record], ends: Ends, say: Callable[[str], None]) -> None:
    """Wait for what a process says, and read all that they have said."""
    try:
        _take(said.get(timeout=POLL), newest, ends, say)
    except queue.Empty:
        return
    _drain(said, newest, ends, say)


def _drain(said: Any, newest: dict[int, Record], ends: Ends, say: Callable[[str], None]) -> None:
    while True:
        try:
            _take(said.get_nowait(), newest, ends, say)
        except queue.Empty:
            return


def _take(item: tuple[int, Any], newest: dict[int, Record], ends: Ends, say: Callable[[str], None]) -> None:
    seed, what = item
    if isinstance(what, str):
        say(f"seed {seed}: {what}")
    elif isinstance(what, tuple):
        ends[seed] = what[1]
    else:
        newest[seed] = what


def _interrupt(pid: int | None) -> None:
    # A terminal has sent its Ctrl-C to all processes already; a second one would end them at once.
    if pid is not None and not sys.stdin.isatty():
        os.kill(pid, signal.SIGINT)


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
