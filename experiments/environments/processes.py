"""Worker processes: start, requests, timeouts and stop, and descriptions of their faults."""

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from .worker import IDLE, Raised, Recipe, serve


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM while a process starts; the new process inherits this setting."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Fault(NamedTuple):
    """Fault of a process, in place of an answer.

    Attributes:
        lanes: Lanes of the process.
        lane: Lane whose environment was being called; None between two calls.
        phase: Phase of the call, a constant of `worker`.
        what: Description of the fault.
        raised: Exception of the environment; None if there was no exception.
        exit_status: Exit status of the process; None while it runs.
    """

    lanes: list[int]
    lane: int | None
    phase: int
    what: str
    raised: Raised | None = None
    exit_status: int | None = None


class Worker:
    """Process that runs some of the environments.

    Attributes:
        number: Number of the process, from 0.
        lanes: Lanes of its environments.
        failures: Descriptions of its failures since its last step, the oldest first.
    """

    def __init__(self, number: int, lanes: list[int]) -> None:
        self.number, self.lanes = number, lanes
        self.failures: list[str] = []

    def start(self, recipe: Recipe) -> None:
        """Start the process, which makes its environments by ``recipe`` and then sends the answer ``[]``."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.progress = context.RawArray("i", 2)
        self.process = context.Process(
            target=serve,
            args=(theirs, self.progress, recipe, len(self.lanes)),
            name=f"polyak worker {self.number}",
            daemon=True,
        )
        with undisturbed():  # the new process ignores Ctrl-C, which this process handles
            self.process.start()
        theirs.close()

    def send(self, request: Any) -> None:
        """Send a request; if the process has ended, :func:`collect` reports it."""
        with contextlib.suppress(OSError):
            self.connection.send(request)

    def read(self) -> Any:
        """Read an answer, or return a `Fault`."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return self._fault(self._how_it_ended(), exit_status=self.process.exitcode)
        if isinstance(answer, Raised):
            return self._fault(f"worker {self.number} raised {answer.text}", raised=answer)
        return answer

    def late(self, seconds: float) -> Fault:
        """Fault of an answer that is late."""
        return self._fault(f"worker {self.number} gave no answer in {seconds:g} s (worker_timeout)")

    def _fault(self, what: str, **known: Any) -> Fault:
        lane, phase = self.progress
        return Fault(self.lanes, None if phase == IDLE else self.lanes[lane], phase, what, **known)

    def _how_it_ended(self) -> str:
        self.process.join(timeout=1.0)
        status = self.process.exitcode
        if status is not None and status < 0:
            memory = " (out of memory?)" if -status == getattr(signal, "SIGKILL", None) else ""
            return f"worker {self.number} was killed by {signal.Signals(-status).name}{memory}"
        return f"worker {self.number} ended with exit status {status}"


def collect(workers: Sequence[Worker], seconds: float) -> dict[Worker, Any]:
    """Wait for an answer of each worker; return the answer or a `Fault` by worker, in the order of ``workers``."""
    deadline = time.monotonic() + seconds
    answers: dict[Worker, Any] = {}
    waiting: dict[Connection, Worker] = {worker.connection: worker for worker in workers}
    while waiting:
        ready = wait(list(waiting), timeout=max(deadline - time.monotonic(), 0.0))
        for connection in ready:
            worker = waiting.pop(connection)  # type: ignore[call-overload]
            answers[worker] = worker.read()
        if not ready:
            answers |= {worker: worker.late(seconds) for worker in waiting.values()}
            break
    return {worker: answers[worker] for worker in workers}


def stop(workers: Sequence[Worker], patience: float) -> None:
    """End processes: give them ``patience`` seconds in total to close their environments, then kill them."""
    started = [worker for worker in workers if hasattr(worker, "process")]
    for worker in started:
        worker.connection.close()
    deadline = time.monotonic() + patience
    for worker in started:
        worker.process.join(max(deadline - time.monotonic(), 0.0))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
