"""Worker processes: started, asked, waited for, stopped; what went wrong with one, in words."""

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
    """Ignores Ctrl-C and SIGTERM for as long as a process takes to start, which inherits that."""
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
    """What a process gave instead of an answer.

    Attributes:
        lanes: the environments of the process.
        lane: the one that it was calling; None where it was between two calls.
        phase: what for, as in `worker`.
        what: what happened, in words.
        raised: the exception, where there was one.
        exit_status: of the process, where it has ended.
    """

    lanes: list[int]
    lane: int | None
    phase: int
    what: str
    raised: Raised | None = None
    exit_status: int | None = None


class Worker:
    """A process with some of the environments.

    Attributes:
        number: its number, from 0.
        lanes: the numbers of its environments.
        failures: what it failed with since its last step, the oldest first.
    """

    def __init__(self, number: int, lanes: list[int]) -> None:
        self.number, self.lanes = number, lanes
        self.failures: list[str] = []

    def start(self, recipe: Recipe) -> None:
        """Starts the process, which makes its environments by ``recipe`` and then gives the answer ``[]``."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.progress = context.RawArray("i", 2)
        self.process = context.Process(
            target=serve,
            args=(theirs, self.progress, recipe, len(self.lanes)),
            name=f"polyak worker {self.number}",
            daemon=True,
        )
        with undisturbed():  # The process is born deaf to Ctrl-C, which this one answers.
            self.process.start()
        theirs.close()

    def send(self, request: Any) -> None:
        """Sends a request; where the process has ended, :func:`collect` will tell."""
        with contextlib.suppress(OSError):
            self.connection.send(request)

    def read(self) -> Any:
        """Reads an answer, or a `Fault`."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            return self._fault(self._how_it_ended(), exit_status=self.process.exitcode)
        if isinstance(answer, Raised):
            return self._fault(f"worker {self.number} raised {answer.text}", raised=answer)
        return answer

    def late(self, seconds: float) -> Fault:
        """The fault of not having answered."""
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
    """Waits for an answer of each worker; returns it, or a `Fault`, by worker in their order."""
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
    """Ends processes: lets each close its environments for ``patience`` seconds in all, and then kills it."""
    started = [worker for worker in workers if hasattr(worker, "process")]
    for worker in started:
        worker.connection.close()
    deadline = time.monotonic() + patience
    for worker in started:
        worker.process.join(max(deadline - time.monotonic(), 0.0))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
