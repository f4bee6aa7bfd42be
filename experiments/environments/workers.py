"""Environments in worker processes, a backend of `lanes.Environments`: faults that a run survives.

Gymnasium's ``AsyncVectorEnv`` has one process for each environment, restarts none, and seeds no episode by
itself. Here a process has several environments and costs one round trip a step, every episode has a seed of its own,
and a process that raises, dies or hangs can be replaced.

Processes are spawned, never forked, as a fork does not take JAX's threads along. They import Gymnasium, not JAX.
"""

import multiprocessing
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .history import History
from .lanes import Outcome
from .objects import text_of
from .processes import Fault, Worker, collect, stop
from .spaces import read_spaces
from .types import EnvironmentFailure, in_short
from .worker import MAKING, RESETTING, Begun, Job, Recipe, begin, keeps_state, step

OnFailure = Literal["stop", "restart"]
BACK_OFF = 0.5  # seconds before a process is restarted; twice as long after each failure in a row
FAILURES_IN_A_ROW = 5  # of one process, without a step between them; one more ends the run
START_SECONDS = 60.0  # at least, for a process to import what it needs and to make its environments
PATIENCE = 2.0  # seconds for the processes to close their environments before they are killed
_NO_GUARD = 78  # exit status of a process that found itself running its parent's script


class Workers:
    """Environments of other processes.

    A process that raises, ends or gives no answer in time has failed. With ``stop`` that is an `EnvironmentFailure`;
    all lanes then count as standing where they stood before the step, so that a snapshot can be taken. With ``restart``
    the process is replaced, after a pause that doubles with each failure in a row; its lanes begin their next episodes.

    Args:
        recipe: Recipe of one environment. The processes import the module of ``"module:Name-v0"``; of a script they
            know what it registers outside of ``if __name__ == "__main__":``.
        one: Environment that was made by the recipe here, for its spaces.
        num_envs: Number of environments ``N``.
        workers: Number of processes, at most ``N``.
        timeout: Number of seconds that one step may take.
        on_failure: Consequence of a failure, ``stop`` or ``restart``.
        action_mask: Whether ``info["action_mask"]`` says which actions are legal, at every reset and every step.

    Raises:
        ValueError: if the environment does not exist in the processes, or a script has no guard.
        EnvironmentFailure: if an environment cannot be made.
    """

    def __init__(
        self,
        recipe: Recipe,
        one: Any,
        num_envs: int,
        *,
        workers: int,
        timeout: float = 60.0,
        on_failure: OnFailure = "stop",
        action_mask: bool = False,
    ) -> None:
        _check_picklable(recipe)
        self._recipe, self._timeout, self._on_failure = recipe, timeout, on_failure
        self.spaces = read_spaces(one.observation_space, one.action_space, action_mask)
        self.num_envs, self.keeps_state = num_envs, keeps_state(one)
        self._traces_shown: set[str] = set()
        shares = np.array_split(np.arange(num_envs), workers)
        self._workers = [Worker(number, share.tolist()) for number, share in enumerate(shares)]
        try:
            for answer in self._start(self._workers).values():
                if isinstance(answer, Fault):
                    raise self._cannot_start(answer)
        except BaseException:
            self.close()
            raise

    def begin(self, history: History, jobs: Mapping[int, Job], *, intact: bool) -> dict[int, Begun]:
        """Reset lanes and take actions in them, as the protocol says."""
        asked = {worker: [jobs.get(lane) for lane in worker.lanes] for worker in self._workers}
        asked = {worker: its for worker, its in asked.items() if any(its)}
        calls = 1 + max(len(job.actions) for job in jobs.values())
        begun: dict[int, Begun] = {}
        for worker, answer in self._ask(begin, asked, calls).items():
            if isinstance(answer, Fault):
                begun |= self._recover(worker, answer, history, None, intact)
            else:
                results = zip(worker.lanes, answer, strict=True)
                begun |= {lane: result for lane, result in results if result is not None}
        return begun

    def step(self, history: History, actions: Sequence[int]) -> Outcome:
        """Take one action in each lane, as the protocol says."""
        jobs = list(zip(actions, history.upcoming, strict=True))
        chosen = [action - self.spaces.action_start for action in actions]
        stepped: list[Any] = [None] * self.num_envs
        begun: dict[int, Begun] = {}
        answers = self._ask(step, {worker: [jobs[lane] for lane in worker.lanes] for worker in self._workers})
        for worker, answer in answers.items():
            if isinstance(answer, Fault):
                begun |= self._recover(worker, answer, history, chosen, True)
                continue
            worker.failures.clear()
            for lane, result in zip(worker.lanes, answer, strict=True):
                stepped[lane] = result
        return stepped, begun

    def close(self) -> None:
        """End the processes, and their environments with them."""
        stop(self._workers, PATIENCE)

    def _recover(
        self, worker: Worker, fault: Fault, history: History, chosen: Sequence[int] | None, intact: bool
    ) -> dict[int, Begun]:
        """Replace a process until all its lanes have begun their next episodes; return what was begun."""
        while True:
            place = _place(fault, history, chosen)
            trace = "" if fault.raised is None else f"\n{fault.raised.trace}"
            worker.failures.append(f"{place}: {fault.what}{trace}")
            if self._on_failure == "stop":
                raise EnvironmentFailure(worker.failures[0], intact=intact)
            if len(worker.failures) > FAILURES_IN_A_ROW:
                raise EnvironmentFailure(
                    f"worker {worker.number} failed {len(worker.failures)} times with no step in between; at first, "
                    f"{worker.failures[0]}",
                    intact=intact,
                )
            pause = BACK_OFF * 2 ** (len(worker.failures) - 1)
            warnings.warn(
                f"{place}: {fault.what}; environments {worker.lanes} start new episodes in a new process after "
                f"{pause:g} s{'' if trace in self._traces_shown else trace}",
                stacklevel=3,
            )
            self._traces_shown.add(trace)
            stop([worker], patience=0.0)
            time.sleep(pause)
            answer, chosen = self._start([worker])[worker], None
            if not isinstance(answer, Fault):
                jobs = [Job(history.begin_next(lane), (), history.kept[lane]) for lane in worker.lanes]
                answer = self._ask(begin, {worker: jobs})[worker]
            if not isinstance(answer, Fault):
                return dict(zip(worker.lanes, answer, strict=True))
            fault = answer

    def _start(self, workers: Sequence[Worker]) -> dict[Worker, Any]:
        for worker in workers:
            worker.start(self._recipe)
        return collect(workers, max(self._timeout, START_SECONDS))

    def _ask(self, function: Callable[..., Any], jobs: Mapping[Worker, Any], calls: int = 1) -> dict[Worker, Any]:
        for worker, its in jobs.items():
            worker.send((function, its))
        return collect(list(jobs), calls * self._timeout)

    def _cannot_start(self, fault: Fault) -> Exception:
        guard = 'if __name__ == "__main__":'
        if fault.exit_status == _NO_GUARD:
            return ValueError(
                "workers: a worker process imports the script that it was started from, and the script begins the "
                f"run again when it is imported. Put what it does under `{guard}`."
            )
        name = self._recipe.target if isinstance(self._recipe.target, str) else text_of(self._recipe.target)
        if fault.raised is not None and {"UnregisteredEnv", "ModuleNotFoundError"} & set(fault.raised.names):
            return ValueError(
                f"env: {name!r} is registered here and not in the worker processes ({fault.raised.text}). "
                'Register it in a module of its own and give "module:Name-v0", or in the script, outside of '
                f"`{guard}`."
            )
        hint = "" if fault.exit_status is None else f". What it printed stands above; a script needs its `{guard}`"
        trace = "" if fault.raised is None else f"\n{fault.raised.trace}"
        return EnvironmentFailure(f"env: {name!r}: {_place(fault, None, None)}: {fault.what}{hint}{trace}")


def _place(fault: Fault, history: History | None, chosen: Sequence[int] | None) -> str:
    """Say where a fault was: in a step with the actions ``chosen``, or (None) while lanes were begun."""
    if fault.lane is None:
        return f"environments {fault.lanes}"
    if fault.phase == MAKING or history is None:
        return f"environment {fault.lane}, while it was made"
    return history.called(fault.lane, fault.phase == RESETTING, chosen)


def check_processes(workers: int, num_envs: int) -> None:
    """Check that this process may start a number of processes.

    Raises:
        ValueError: if the number is out of its range, or this process may have no processes of its own.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= num_envs:
        raise ValueError(f"workers: got {workers!r}; expected an integer, 0 <= workers <= num_envs, {num_envs}.")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(_NO_GUARD)  # This is a process that was started here; see _cannot_start.
    if multiprocessing.current_process().daemon:
        raise ValueError(
            "workers: this is a daemonic process, as those of multiprocessing.Pool are, which may start no "
            "processes. Give workers=0, or start it with concurrent.futures.ProcessPoolExecutor."
        )


def _check_picklable(found: Recipe) -> None:
    try:
        pickle.dumps(found)
    except Exception as error:
        raise ValueError(
            f"workers: the environment cannot be sent to other processes ({in_short(error)}). Give a class or a "
            "function of a module, or workers=0."
        ) from error
