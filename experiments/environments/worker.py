"""Program of a worker process: a few environments, stepped when the parent asks (see workers.py).

It imports nothing of polyak: the process would import JAX with it, which no environment needs.
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
    """An environment answered as those of the old Gym API do."""


class Job(NamedTuple):
    """Episode to begin.

    Attributes:
        seed: Seed to reset the environment with.
        actions: Actions to take then, as the environment numbers them.
        kept: What the environment is to keep from the episodes before, as the text of a JSON value; None for what it
            has.
    """

    seed: int
    actions: Sequence[int] = ()
    kept: str | None = None


class Begun(NamedTuple):
    """Episode that was begun.

    Attributes:
        seen: Observation, and the action mask, if there is one.
        reward: Reward of the last action; 0 where none was taken.
        ended: Whether an action ended the episode; those after it were not taken.
        kept: What the environment kept from the episodes before.
    """

    seen: tuple[Any, Any]
    reward: Any
    ended: bool
    kept: str | None


class Stepped(NamedTuple):
    """Step of one environment.

    Attributes:
        seen: Observation, and the action mask, if there is one.
        reward: Reward as the environment gave it.
        terminated: Whether the episode terminated.
        truncated: Whether the episode was truncated.
        first: Start of the next episode; None where the episode continues.
    """

    seen: tuple[Any, Any]
    reward: Any
    terminated: bool
    truncated: bool
    first: Begun | None


class Raised:
    """Exception of an environment, sent to the parent.

    Attributes:
        names: Names of its class and the classes above.
        text: Class and message, on a line.
        trace: Traceback from `own_traceback`.
    """

    def __init__(self, error: Exception) -> None:
        self.names = [kind.__name__ for kind in type(error).__mro__]
        self.text = "".join(traceback.format_exception_only(error)).strip()
        self.trace = own_traceback(error)


def own_traceback(error: BaseException) -> str:
    """The traceback of what an environment raised, without the calls of polyak and Gymnasium that led to it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] not in ("polyak", "gymnasium"):
            break
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def keeps_state(env: Any) -> bool:
    """Whether an environment offers what it keeps between episodes, with ``get_state`` and ``set_state``."""
    return bool(env.has_wrapper_attr("get_state") and env.has_wrapper_attr("set_state"))


def kept_state(env: Any) -> str | None:
    """State that an environment keeps between episodes, as JSON text; None if it offers none."""
    if not keeps_state(env):
        return None
    try:
        return json.dumps(env.get_wrapper_attr("get_state")())
    except Exception:  # methods of another meaning: no JSON, or an error before the first reset
        return None


def set_kept_state(env: Any, text: str | None) -> None:
    """Give an environment back what it kept before an episode."""
    if text is not None:
        env.get_wrapper_attr("set_state")(json.loads(text))


class Recipe(NamedTuple):
    """Recipe of one environment.

    Attributes:
        target: Id, as ``gymnasium.make`` takes it, or a class or function that returns an environment.
        kwargs: Keyword arguments of either.
        wrappers: Functions of an environment that return one, the innermost first.
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
    """Makes ``number`` environments and answers requests until the pipe closes, as it does when the parent dies.

    Args:
        connection: Worker's end of the pipe. A request is ``(function, jobs)`` with a job for each environment; an
            answer is a list with a result for each, or one `Raised`. The first answer, to no request, is ``[]``.
        progress: Two shared integers, the environment that is called now and the purpose; they outlive the process.
        recipe: Recipe of each environment.
        number: Number of environments.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent answers it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    envs: list[Any] = []
    request: tuple[Any, Any] = (_make, [recipe] * number)
    while True:
        # Pickled here, so that a result that cannot be pickled is reported like any other error.
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
    """Resets each environment with its seed and takes its actions; leaves those alone whose job is None."""
    return [None if job is None else _begin(envs[lane], progress, lane, job) for lane, job in enumerate(jobs)]


def step(envs: list[Any], progress: Any, jobs: Iterable[tuple[int, int]]) -> list[Stepped]:
    """Takes an action in each environment; a job is the action and the seed to reset with where it ends the episode."""
    results = []
    for lane, (action, seed) in enumerate(jobs):
        progress[0], progress[1], env = lane, STEPPING, envs[lane]
        seen, reward, terminated, truncated = _step(env, action)
        first = None
        if terminated or truncated:
            progress[1] = RESETTING
            seen = copy.deepcopy(seen)  # The reset may write into the same array.
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
