"""Environments in worker processes, a backend of `lanes.Environments` that can survive faults of environments.

Gymnasium's ``AsyncVectorEnv`` uses one process for each environment, does not restart processes, and does not seed
single episodes. Here a process runs several environments and costs one round trip per step, every episode has its own
seed, and a process that raises, dies or hangs can be replaced.

Processes are spawned and not forked, because a fork does not copy JAX's threads. They import Gymnasium but not JAX.
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
BACK_OFF = 0.5  # seconds before a process is restarted; doubled after each further consecutive failure
FAILURES_IN_A_ROW = 5  # consecutive failures of one process without a step; one more ends the run
START_SECONDS = 60.0  # minimum time for a process to import its modules and make its environments
PATIENCE = 2.0  # seconds for the processes to close their environments before they are killed
_NO_GUARD = 78  # exit status of a process that executes its parent's script without the guard


class Workers:
    """Environments in worker processes.

    A process fails if it raises, ends or exceeds the timeout. With ``stop``, a failure raises `EnvironmentFailure`; the
    state of all lanes then still counts as that before the step, so that a snapshot can be taken. With ``restart``, the
    process is replaced after a delay that doubles with each consecutive failure, and its lanes begin their next
    episodes.

    Args:
        recipe: Recipe of one environment. The processes import the module of ``"module:Name-v0"``. If a script starts
            them, they know the environments that it registers outside of ``if __name__ == "__main__":``.
        one: Environment made by the recipe in this process, for its spaces.
        num_envs: Number of environments ``N``.
        workers: Number of processes, at most ``N``.
        timeout: Number of seconds that one step may take.
        on_failure: Consequence of a failure, ``stop`` or ``restart``.
        action_mask: Whether ``info["action_mask"]`` lists the legal actions, at every reset and every step.

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
        """Reset lanes and replay actions in them, see ``Backend``."""
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
        """Take one action in each lane, see ``Backend``."""
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
        """End the processes and close their environments."""
        stop(self._workers, PATIENCE)

    def _recover(
        self, worker: Worker, fault: Fault, history: History, chosen: Sequence[int] | None, intact: bool
    ) -> dict[int, Begun]:
        """Replace a process until all its lanes have begun their next episodes; return the starts of these."""
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
                "workers: a worker process imports the script that started it, and this script starts the run again "
                f"when it is imported. Put the code that starts the run under `{guard}`."
            )
        name = self._recipe.target if isinstance(self._recipe.target, str) else text_of(self._recipe.target)
        if fault.raised is not None and {"UnregisteredEnv", "ModuleNotFoundError"} & set(fault.raised.names):
            return ValueError(
                f"env: {name!r} is registered here and not in the worker processes ({fault.raised.text}). Register it "
                'in its own module and give "module:Name-v0", or register it in the script, outside of '
                f"`{guard}`."
            )
        hint = "" if fault.exit_status is None else f". Its output is printed above; a script needs its `{guard}`"
        trace = "" if fault.raised is None else f"\n{fault.raised.trace}"
        return EnvironmentFailure(f"env: {name!r}: {_place(fault, None, None)}: {fault.what}{hint}{trace}")


def _place(fault: Fault, history: History | None, chosen: Sequence[int] | None) -> str:
    """Describe the place of a fault: in a step with the actions ``chosen``, or (None) while episodes were begun."""
    if fault.lane is None:
        return f"environments {fault.lanes}"
    if fault.phase == MAKING or history is None:
        return f"environment {fault.lane}, while it was made"
    return history.called(fault.lane, fault.phase == RESETTING, chosen)


def check_processes(workers: int, num_envs: int) -> None:
    """Check that this process may start a number of worker processes.

    Raises:
        ValueError: if the number is out of range, or this process may not start processes.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= num_envs:
        raise ValueError(f"workers: got {workers!r}; expected an integer, 0 <= workers <= num_envs, {num_envs}.")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(_NO_GUARD)  # This process was started here as a worker; see _cannot_start.
    if multiprocessing.current_process().daemon:
        raise ValueError(
            "workers: this is a daemonic process, such as a process of multiprocessing.Pool, which may not start "
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
