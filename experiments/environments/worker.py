"""Program of a worker process, which runs some environments and steps them on request (see workers.py).

It imports nothing from polyak, because that would import JAX, which no environment needs.
"""

import copy
import json
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

IDLE, MAKING, RESETTING, STEPPING = range(4)
OLD_API = (
    "This is the old Gym API. Subclass gymnasium.Env, return (observation, reward, terminated, truncated, info) from "
    "step(action) and (observation, info) from reset(seed=None, options=None)."
)


class OldApiError(TypeError):
    """Error of an environment that implements the old Gym API."""


class Job(NamedTuple):
    """Episode to begin.

    Attributes:
        seed: Seed for the reset of the environment.
        actions: Actions to take after the reset, in the environment's numbering.
        kept: State to set before the reset, as JSON text; None leaves the environment's own state.
    """

    seed: int
    actions: Sequence[int] = ()
    kept: str | None = None


class Begun(NamedTuple):
    """Result of beginning an episode.

    Attributes:
        seen: Observation and action mask, or None for no mask.
        reward: Reward of the last action; 0 without actions.
        ended: Whether an action ended the episode; the remaining actions were not taken.
        kept: State that the environment keeps between episodes, read before the reset.
    """

    seen: tuple[Any, Any]
    reward: Any
    ended: bool
    kept: str | None


class Stepped(NamedTuple):
    """Result of a step of one environment.

    Attributes:
        seen: Observation and action mask, or None for no mask.
        reward: Reward as the environment returned it.
        terminated: Whether the episode terminated.
        truncated: Whether the episode was truncated.
        first: Start of the next episode; None if the episode continues.
    """

    seen: tuple[Any, Any]
    reward: Any
    terminated: bool
    truncated: bool
    first: Begun | None


class Raised:
    """Exception of an environment, sent to the parent process.

    Attributes:
        names: Names of its class and of the base classes.
        text: Class and message in one line.
        trace: Traceback from `own_traceback`.
    """

    def __init__(self, error: Exception) -> None:
        self.names = [kind.__name__ for kind in type(error).__mro__]
        self.text = "".join(traceback.format_exception_only(error)).strip()
        self.trace = own_traceback(error)


def own_traceback(error: BaseException) -> str:
    """Traceback of an environment's exception, without the frames of polyak and Gymnasium above the environment."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] not in ("polyak", "gymnasium"):
            break
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def keeps_state(env: Any) -> bool:
    """Whether an environment has ``get_state`` and ``set_state`` for the state that it keeps between episodes."""
    return bool(env.has_wrapper_attr("get_state") and env.has_wrapper_attr("set_state"))


def kept_state(env: Any) -> str | None:
    """State that an environment keeps between episodes, as JSON text; None if it has none."""
    if not keeps_state(env):
        return None
    try:
        return json.dumps(env.get_wrapper_attr("get_state")())
    except Exception:  # unrelated methods of the same names: no JSON, or an error before the first reset
        return None


def set_kept_state(env: Any, text: str | None) -> None:
    """Set the state that an environment keeps between episodes."""
    if text is not None:
        env.get_wrapper_attr("set_state")(json.loads(text))


class Recipe(NamedTuple):
    """Recipe of one environment.

    Attributes:
        target: Id for ``gymnasium.make``, or a class or function that returns an environment.
        kwargs: Keyword arguments of the target.
        wrappers: Functions from an environment to an environment, the innermost first.
    """

    target: str | Callable[..., Any]
    kwargs: Mapping[str, Any] = {}
    wrappers: tuple[Callable[[Any], Any], ...] = ()

    def make(self) -> Any:
        """Make an environment."""
        import gymnasium

        if isinstance(self.target, str):
            env = gymnasium.make(self.target, disable_env_checker=True, **self.kwargs)
        else:
            env = self.target(**self.kwargs)
        for wrapper in self.wrappers:
            env = wrapper(env)
        return env


def serve(connection: Any, progress: Any, recipe: Recipe, number: int) -> None:
    """Make ``number`` environments and answer requests until the pipe closes, which it also does if the parent dies.

    Args:
        connection: Worker's end of the pipe. A request is ``(function, jobs)`` with one job for each environment. An
            answer is a list with one result for each environment, or a `Raised`. The first answer, without a request,
            is ``[]``.
        progress: Two shared integers that outlive the process: the environment being called, and the phase.
        recipe: Recipe of each environment.
        number: Number of environments.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent handles it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    envs: list[Any] = []
    request: tuple[Any, Any] = (_make, [recipe] * number)
    while True:
        # Pickled here, so that a result that cannot be pickled is reported as an error.
        try:
            answer = pickle.dumps(request[0](envs, progress, request[1]))
        except Exception as error:
            answer = pickle.dumps(Raised(error))
        else:
            progress[1] = IDLE
        try:
            connection.send_bytes(answer)
            request = connection.recv()
        except (EOFError, OSError):
            break
    for env in envs:
        env.close()


def begin(envs: list[Any], progress: Any, jobs: Sequence[Job | None]) -> list[Begun | None]:
    """Reset each environment with its seed and take its actions; skip environments whose job is None."""
    return [None if job is None else _begin(envs[lane], progress, lane, job) for lane, job in enumerate(jobs)]


def step(envs: list[Any], progress: Any, jobs: Iterable[tuple[int, int]]) -> list[Stepped]:
    """Take an action in each environment; a job is the action and the seed for a reset if the episode ends."""
    results = []
    for lane, (action, seed) in enumerate(jobs):
        progress[0], progress[1], env = lane, STEPPING, envs[lane]
        seen, reward, terminated, truncated = _step(env, action)
        first = None
        if terminated or truncated:
            progress[1] = RESETTING
            seen = copy.deepcopy(seen)  # the reset may write to the same array
            first = _begin(env, progress, lane, Job(seed))
        results.append(Stepped(seen, reward, terminated, truncated, first))
    return results


def _make(envs: list[Any], progress: Any, recipes: Sequence[Recipe]) -> list[Any]:
    for lane, recipe in enumerate(recipes):
        progress[0], progress[1] = lane, MAKING
        envs.append(recipe.make())
    return []


def _begin(env: Any, progress: Any, lane: int, job: Job) -> Begun:
    progress[0], progress[1] = lane, RESETTING
    set_kept_state(env, job.kept)
    kept = kept_state(env)
    seen, reward = _reset(env, job.seed), 0.0
    for action in job.actions:
        progress[1] = STEPPING
        seen, reward, terminated, truncated = _step(env, action)
        if terminated or truncated:
            return Begun(seen, reward, True, kept)
    return Begun(seen, reward, False, kept)


def _reset(env: Any, seed: int) -> tuple[Any, Any]:
    result = env.reset(seed=seed)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise OldApiError(f"reset did not return (observation, info). {OLD_API}")
    return result[0], result[1].get("action_mask")


def _step(env: Any, action: int) -> tuple[tuple[Any, Any], Any, bool, bool]:
    result = env.step(action)
    if not isinstance(result, tuple) or len(result) != 5:
        raise OldApiError(f"step did not return 5 values. {OLD_API}")
    observation, reward, terminated, truncated, info = result
    seen = observation, info.get("action_mask") if isinstance(info, dict) else None
    return seen, reward, bool(terminated), bool(truncated)
