"""Runs in processes side by side on this machine."""

import multiprocessing
import os
import pathlib
import queue
import signal
import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

from ..loops.learning import Record
from . import train as runs
from .config import RunConfig

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"  # processes beside each other
POLL = 0.5  # seconds between two looks at processes that have said nothing
Key = TypeVar("Key", bound=Hashable)
Ends = dict[Key, dict[str, Any] | str | None]  # evaluation, an error in words, or None if interrupted


class Job(NamedTuple):
    """Run of one process.

    Attributes:
        config: Config of the run.
        folder: Folder of the run.
        resumes: Whether the folder contains the run, which is then continued.
    """

    config: RunConfig
    folder: pathlib.Path
    resumes: bool = False


def run_side_by_side(
    jobs: Mapping[Key, Job],
    show: Callable[[Mapping[Key, Record], Ends[Key]], None],
    say: Callable[[Key, str], None],
    given: Mapping[str, Any] = {},
    at_a_time: int | None = None,
) -> Ends[Key]:
    """Train runs, each in a process of its own.

    Ctrl-C reaches all processes: each saves its run, and no other run begins.

    Args:
        jobs: Runs by key.
        show: Function called with the newest record of each run, and the ends so far.
        say: Function called with the key of a run and each of its messages.
        given: Objects passed from Python, by their text in the config; processes must be able to import them.
        at_a_time: Number of processes that run together; by default one for each core.

    Returns:
        Key to the evaluation of its run, to the text of its error, or to None if it was interrupted. A run that never
        began has no entry.
    """
    context = multiprocessing.get_context("spawn")
    said: Any = context.Queue()
    waiting, cores = list(jobs), at_a_time or os.cpu_count() or 1
    newest: dict[Key, Record] = {}
    ends: Ends[Key] = {}
    running: dict[Key, Any] = {}
    if cores > 1:
        os.environ.setdefault("XLA_FLAGS", ONE_THREAD)
    interrupted = False
    while (waiting and not interrupted) or running:
        while waiting and not interrupted and len(running) < cores:
            key = waiting.pop(0)
            running[key] = context.Process(target=_run_one, args=(key, jobs[key], given, said))
            running[key].start()
        try:
            _read(said, newest, ends, say)
            for key in [key for key, process in running.items() if not process.is_alive()]:
                process = running.pop(key)
                process.join()
                _drain(said, newest, ends, say)
                ends.setdefault(key, f"its process ended with exit status {process.exitcode}")
            show(newest, ends)
        except KeyboardInterrupt:
            interrupted = True
            for process in running.values():
                _interrupt(process.pid)
    return ends


def _run_one(key: Any, job: Job, given: Mapping[str, Any], said: Any) -> None:
    """Program of a process."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)

    def on_record(record: Record) -> None:
        said.put((key, record))

    def report(text: str) -> None:
        said.put((key, text))

    try:
        if job.resumes:
            end: Any = runs.resume(job.folder, on_record, report, given=given)
        else:
            end = runs.train(job.config, job.folder, on_record, report, given=given)
    except Exception as error:
        end = f"{type(error).__name__}: {error}"
    said.put((key, ("end", end)))


def _read(said: Any, newest: dict[Any, Record], ends: Ends[Any], say: Callable[[Any, str], None]) -> None:
    """Wait for a message of a process, and read all messages."""
    try:
        _take(said.get(timeout=POLL), newest, ends, say)
    except queue.Empty:
        return
    _drain(said, newest, ends, say)


def _drain(said: Any, newest: dict[Any, Record], ends: Ends[Any], say: Callable[[Any, str], None]) -> None:
    while True:
        try:
            _take(said.get_nowait(), newest, ends, say)
        except queue.Empty:
            return


def _take(item: tuple[Any, Any], newest: dict[Any, Record], ends: Ends[Any], say: Callable[[Any, str], None]) -> None:
    key, message = item
    if isinstance(message, str):
        say(key, message)
    elif isinstance(message, tuple):
        ends[key] = message[1]
    else:
        newest[key] = message


def _interrupt(pid: int | None) -> None:
    # A terminal has sent its Ctrl-C to all processes already; a second one would end them at once.
    if pid is not None and not sys.stdin.isatty():
        os.kill(pid, signal.SIGINT)
