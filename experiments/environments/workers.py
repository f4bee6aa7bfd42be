"""Environments in worker processes, as the loop sees them: the same steps, and faults that a run survives.

Gymnasium's ``AsyncVectorEnv`` has one process for each environment, restarts none, and seeds no episode by
itself. Here a process has several environments and costs one round trip a step, every episode has a seed of its own as
in `polyak.experiments.environments.local`, and a process that raises, dies or hangs can be replaced.

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

from ...replay.types import EnvironmentSpec, TimeStep
from .history import History, episode_seed, warn_of_lost_state
from .local import Environments
from .make import make_one, recipe
from .objects import text_of
from .processes import Fault, Worker, collect, stop
from .spaces import Spaces, check_actions, read_spaces, warn_of_mask
from .types import EnvironmentFailure, EnvironmentStep, in_short
from .worker import MAKING, RESETTING, Recipe, begin, keeps_state, step

OnFailure = Literal["stop", "restart"]
BACK_OFF = 0.5  # seconds before a process is restarted; twice as long after each failure in a row
FAILURES_IN_A_ROW = 5  # of one process, without a step between them; one more ends the run
START_SECONDS = 60.0  # at least, for a process to import what it needs and to make its environments
PATIENCE = 2.0  # seconds for the processes to close their environments before they are killed
_NO_GUARD = 78  # exit status of a process that found itself running its parent's script


class WorkerEnvironments:
    """The lanes of an environment in processes, with the methods of `Environments` and the same steps.

    A process that raises, ends or gives no answer in time has failed. With ``stop`` that is an `EnvironmentFailure`;
    all lanes then count as standing where they stood before the step, so that `snapshot` can be taken. With ``restart``
    the process is replaced, after a pause that doubles with each failure in a row; its lanes begin their next episodes,
    and the step says so in ``restarted``.

    Args:
        env: Text or recipe of the environment, see ``experiments.environments.make.recipe``. The processes
            import the module of ``"module:Name-v0"``; of a script they know what it registers outside of
            ``if __name__ == "__main__":``.
        num_envs: Number of environments ``N``.
        seed: Seed of the run; lanes and episodes get seeds of their own from it.
        workers: Number of processes, at most ``N``.
        timeout: Number of seconds that one step may take.
        on_failure: Consequence of a failure, ``stop`` or ``restart``.
        action_mask: Whether ``info["action_mask"]`` says which actions are legal, at every reset and every step.

    Attributes:
        spaces: Spaces of one environment as they are stored.
        spec: Spec for agents and replays.
        num_envs: Number of environments ``N``.

    Raises:
        ValueError: a number out of range, an environment that does not exist or not in the processes, a script
            without its guard, a process that may have no processes of its own.
        EnvironmentFailure: an environment that cannot be made.

    Example:
        >>> import numpy
        >>> environments = WorkerEnvironments("CartPole-v1", num_envs=2, seed=0)
        >>> environments.reset().observation.shape
        (2, 4)
        >>> environments.step(numpy.array([0, 1])).r_t
        array([1., 1.], dtype=float32)
        >>> environments.close()
    """

    spaces: Spaces
    spec: EnvironmentSpec
    num_envs: int

    def __init__(
        self,
        env: str | Recipe,
        num_envs: int = 1,
        seed: int = 0,
        *,
        workers: int = 1,
        timeout: float = 60.0,
        on_failure: OnFailure = "stop",
        action_mask: bool = False,
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= num_envs:
            raise ValueError(f"workers: got {workers!r}; expected an integer, 1 <= workers <= num_envs, {num_envs}.")
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            sys.exit(_NO_GUARD)  # This is a process that was started here; see _cannot_start.
        if multiprocessing.current_process().daemon:
            raise ValueError(
                "workers: this is a daemonic process, as those of multiprocessing.Pool are, which may start no "
                "processes. Give workers=0, or start it with concurrent.futures.ProcessPoolExecutor."
            )
        self._recipe = recipe(env) if isinstance(env, str) else env
        _check_picklable(self._recipe)
        one = make_one(self._recipe)  # An environment that cannot be made fails here, as without processes.
        try:
            Environments([one])
            self.spaces = read_spaces(one.observation_space, one.action_space, action_mask)
        finally:
            self._keeps_state = keeps_state(one)
            one.close()
        self.spec, self.num_envs = self.spaces.spec, num_envs
        self._timeout, self._on_failure = timeout, on_failure
        self._history = History(seed, num_envs)
        self._next_seeds = [0] * num_envs
        # What is legal now in each lane, written in place; None where masks are not used.
        self._legal = np.ones((num_envs, self.spec.num_actions), np.bool_) if action_mask else None
        self._timestep: TimeStep | None = None
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

    def reset(self) -> TimeStep:
        """Starts the next episode in every lane, the first of all at the first call.

        Raises:
            RuntimeError: after `close`.
            EnvironmentFailure: as `step`.
            ValueError: where a first observation has another shape than its space says, or is not finite.
        """
        self._require_open()
        begun = self._begin({lane: (self._history.episode[lane] + 1, (), None) for lane in range(self.num_envs)})
        rows = [self._read(lane, begun[lane][0]) for lane in range(self.num_envs)]
        zeros, ones = np.zeros(self.num_envs, np.float32), np.ones(self.num_envs, np.bool_)
        self._timestep = TimeStep(np.stack(rows), zeros, ones, self._action_mask())
        return self._timestep

    def step(self, actions: Any) -> EnvironmentStep:
        """Takes one action in every environment and resets those whose episode ended.

        Args:
            actions: ``[N]`` integers, counted from 0.

        Raises:
            RuntimeError: before `reset` or after `close`.
            EnvironmentFailure: a process failed, with ``stop``; too often in a row, with ``restart``.
            TypeError, ValueError: as `Environments.step`.
        """
        self._require_reset()
        history, shift = self._history, self.spaces.action_start
        chosen = check_actions(actions, self.num_envs, self.spec.num_actions)
        jobs = [(action + shift, seed) for action, seed in zip(chosen, self._next_seeds, strict=True)]
        answers = self._ask(step, {worker: [jobs[lane] for lane in worker.lanes] for worker in self._workers})
        restarted = np.zeros(self.num_envs, np.bool_)
        first: dict[int, Any] = {}
        results: dict[int, Any] = {}
        for worker, answer in answers.items():
            if isinstance(answer, Fault):
                first |= {lane: begun[0] for lane, begun in self._recover(worker, answer, chosen).items()}
                restarted[worker.lanes] = True
            else:
                worker.failures.clear()
                results |= zip(worker.lanes, answer, strict=True)

        obs_t = np.zeros((self.num_envs, *self.spec.observation.shape), self.spec.observation.dtype)
        r_t, discount_t = np.zeros(self.num_envs, np.float32), np.ones(self.num_envs, np.float32)
        last = np.zeros(self.num_envs, np.bool_)
        for lane, (seen, reward, terminated, truncated, begun) in results.items():
            history.actions[lane].append(chosen[lane])
            r_t[lane] = history.read_reward(lane, reward)
            obs_t[lane] = self._read(lane, seen, may_be_empty=terminated)
            discount_t[lane], last[lane] = not terminated, terminated or truncated
            if last[lane]:
                self._note_begin(lane, history.episode[lane] + 1)
                first[lane], history.kept[lane] = begun
        mask_t = self._action_mask()
        observation, begins = obs_t, last | restarted
        if first:
            observation = obs_t.copy()
            for lane, begun in first.items():
                observation[lane] = self._read(lane, begun)
        seen_reward = np.where(begins, np.float32(0), r_t)
        self._timestep = TimeStep(observation, seen_reward, begins, self._action_mask())
        failed = restarted if restarted.any() else None
        return EnvironmentStep(r_t, discount_t, last, obs_t, self._timestep, ~restarted, mask_t, failed)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Returns a snapshot from which this point can be reached again, as `Environments.snapshot` does.

        Raises:
            RuntimeError: before `reset` or after `close`.
        """
        return self._history.pack(self._require_reset())

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> tuple[TimeStep, np.ndarray]:
        """Comes back to the point of a snapshot, as `Environments.restore` does; either restores the other's.

        Args:
            snapshot: from `snapshot`, taken with environments like these.

        Returns:
            What the agent sees next, and ``[N]`` bool, True for the lanes that had to start a new episode.

        Raises:
            RuntimeError: after `close`.
            EnvironmentFailure: as `step`.
            ValueError: where it is not a snapshot of such environments.
        """
        self._require_open()
        saved, history = self._history.unpack(snapshot, self.spec.observation), self._history
        if self._keeps_state:
            warn_of_lost_state(saved)
        starts = enumerate(zip(saved.episode, saved.actions, saved.kept, strict=True))
        reached = self._begin(dict(starts))
        rows, rewards = np.empty_like(saved.observation), np.zeros(self.num_envs, np.float32)
        restarted = np.zeros(self.num_envs, np.bool_)
        strayed: dict[int, tuple[int, Sequence[int], str | None]] = {}
        for lane, (seen, reward, ended, _) in reached.items():
            rows[lane] = self._read(lane, seen, may_be_empty=ended)
            rewards[lane] = history.read_reward(lane, reward)
            restarted[lane] = history.episode[lane] != saved.episode[lane]  # Its process was replaced meanwhile.
            equal = rows[lane].tobytes() == saved.observation[lane].tobytes() and rewards[lane] == saved.reward[lane]
            if not restarted[lane] and (ended or not equal):
                strayed[lane] = history.episode[lane] + 1, (), None
        if strayed:
            warnings.warn(
                f"environments {list(strayed)} did not come back to the saved observation with the same seed and "
                "actions, so they start a new episode: they are not deterministic.",
                stacklevel=2,
            )
            for lane, (seen, *_) in self._begin(strayed).items():
                rows[lane] = self._read(lane, seen)
                rewards[lane], restarted[lane] = 0, True
        first = np.array([not actions for actions in history.actions])
        self._timestep = TimeStep(rows, rewards, first, self._action_mask())
        return self._timestep, restarted

    def close(self) -> None:
        """Ends the processes, and their environments with them; a second call does nothing."""
        stop(self._workers, PATIENCE)
        self._workers, self._timestep = [], None

    def _require_open(self) -> None:
        if not self._workers:
            raise RuntimeError("environments: already closed; make new ones.")

    def _require_reset(self) -> TimeStep:
        self._require_open()
        if self._timestep is None:
            raise RuntimeError("environments: not started; call reset or restore first.")
        return self._timestep

    def _action_mask(self) -> Any:
        return () if self._legal is None else self._legal.copy()

    def _read(self, lane: int, seen: tuple[Any, Any], *, may_be_empty: bool = False) -> np.ndarray:
        """Returns the observation as it is stored, and notes the actions that are legal now."""
        observation, mask = seen
        row = self._history.encode(lane, self.spaces, observation)
        self._history.check_observation(lane, row)
        if self._legal is not None:
            actions = self.spec.num_actions
            self._legal[lane] = self._history.read_mask(lane, mask, actions, may_be_empty=may_be_empty)
        elif self._timestep is None and lane == 0:
            warn_of_mask(mask)
        return row

    def _note_begin(self, lane: int, episode: int) -> int:
        self._next_seeds[lane] = episode_seed(self._history.seed, lane, episode + 1)
        return self._history.begin(lane, episode)

    def _begin(
        self, starts: Mapping[int, tuple[int, Sequence[int], str | None]]
    ) -> dict[int, tuple[Any, Any, bool, str | None]]:
        """Begins an episode of each lane and takes the actions in it; returns what `worker.begin` does.

        Where a process had to be replaced, all its lanes are in the result, each at the start of its next episode.
        """
        shift = self.spaces.action_start
        jobs = {
            lane: (self._note_begin(lane, episode), [action + shift for action in actions], kept)
            for lane, (episode, actions, kept) in starts.items()
        }
        asked = {worker: [jobs.get(lane) for lane in worker.lanes] for worker in self._workers}
        asked = {worker: its for worker, its in asked.items() if any(its)}
        calls = 1 + max(len(actions) for _, actions, _ in starts.values())
        begun: dict[int, tuple[Any, Any, bool, str | None]] = {}
        for worker, answer in self._ask(begin, asked, calls).items():
            if isinstance(answer, Fault):
                begun |= self._recover(worker, answer)
                continue
            for lane, result in zip(worker.lanes, answer, strict=True):
                if result is not None:
                    self._history.actions[lane].extend(starts[lane][1])
                    self._history.kept[lane] = result[3]
                    begun[lane] = result
        return begun

    def _recover(
        self, worker: Worker, fault: Fault, chosen: Sequence[int] | None = None
    ) -> dict[int, tuple[Any, Any, bool, str | None]]:
        """Replaces a process until all its lanes have begun their next episodes; returns what was begun."""
        while True:
            place = self._place(fault, chosen)
            trace = "" if fault.raised is None else f"\n{fault.raised.trace}"
            worker.failures.append(f"{place}: {fault.what}{trace}")
            intact = self._timestep is not None
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
                history = self._history
                jobs = [
                    (self._note_begin(lane, history.episode[lane] + 1), (), history.kept[lane]) for lane in worker.lanes
                ]
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

    def _place(self, fault: Fault, chosen: Sequence[int] | None) -> str:
        """Says where a fault was: in a step with the actions ``chosen``, or (None) while lanes were begun."""
        lane = fault.lane
        if lane is None:
            return f"environments {fault.lanes}"
        episode = self._history.episode[lane]
        if fault.phase == MAKING:
            return f"environment {lane}, while it was made"
        if fault.phase == RESETTING:
            return f"environment {lane}, episode {episode if chosen is None else episode + 1}, step 0"
        if chosen is None:
            return f"environment {lane}, episode {episode}, while its actions were taken again"
        number = len(self._history.actions[lane]) + 1
        return f"environment {lane}, episode {episode}, step {number}, action {chosen[lane]}"

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
        return EnvironmentFailure(f"env: {name!r}: {self._place(fault, None)}: {fault.what}{hint}{trace}")


def _check_picklable(found: Recipe) -> None:
    try:
        pickle.dumps(found)
    except Exception as error:
        raise ValueError(
            f"workers: the environment cannot be sent to other processes ({in_short(error)}). Give a class or a "
            "function of a module, or workers=0."
        ) from error
