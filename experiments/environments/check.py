"""Conformance suite of ``polyak check``, for functional environments and for Gymnasium environments."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import check_gymnasium, check_runs, check_traces
from .findings import Finding, skipped
from .functional.names import functional_environment
from .functional.types import FunctionalEnvironment
from .make import given_environment, make_one, recipe
from .objects import read_kwargs, resolve
from .worker import Recipe

_NEEDED = ("traceable", "spec", "observations", "reward and flags", "state")  # without these the others cannot run


def check(
    env: Any,
    *,
    env_kwargs: str | Mapping[str, Any] = "{}",
    wrappers: Sequence[str | Callable[[Any], Any]] = (),
    steps: int = 1000,
    num_envs: int = 16,
    seed: int = 0,
) -> list[Finding]:
    r"""Check that an environment keeps the rules on which the loops rely.

    Args:
        env: `FunctionalEnvironment`; or the id, class, function or instance of a Gymnasium environment; or a text
            ``module:NAME`` of one of these, or of a function that makes one.
        env_kwargs: Keyword arguments of the environment, a mapping or the text of a JSON object.
        wrappers: Functions from an environment to an environment, or their texts ``module:NAME``, the innermost first.
        steps: Number of steps of each environment under random legal actions, at least 1.
        num_envs: Number of functional environments that are stepped together, at least 1. A Gymnasium environment is
            checked alone.
        seed: Seed of actions and starts.

    Returns:
        Findings in the order of the checks. The environment keeps the rules if none has the status ``failed``.

    Raises:
        ValueError: if there is no such environment, or a number is out of range.
        TypeError: if ``env`` neither is nor makes an environment, or a wrapper is not callable.
        EnvironmentFailure: if the environment raises during its construction.

    >>> from polyak.experiments.environments.functional.classic_control import cartpole
    >>> findings = check(cartpole(), steps=100, num_envs=2)
    >>> print(*findings[:2], sep="\n")
    passed          traceable           jit traces init, step and the action mask
    passed          spec                observation float32[4], 2 actions
    >>> any(finding.status == "failed" for finding in findings)
    False
    """
    for name, number in (("steps", steps), ("num_envs", num_envs)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name}: got {number!r}; expected an integer >= 1.")
    wraps = [_wrapper(wrapper) for wrapper in wrappers]
    kwargs = env_kwargs if isinstance(env_kwargs, str) else json.dumps(dict(env_kwargs))
    found: Any = _environment(env, kwargs)
    if isinstance(found, Recipe):
        found = found._replace(wrappers=tuple(wraps))
        make_one(found).close()
        return check_gymnasium.check_gymnasium(found, steps=steps, seed=seed)
    for wrap in wraps:
        found = wrap(found)
    if not isinstance(found, FunctionalEnvironment):
        raise TypeError(f"wrappers: got {type(found).__name__} from the last one; expected a FunctionalEnvironment.")
    findings = check_traces.check_traces(found)
    wrong = [finding.check for finding in findings if finding.status == "failed"]
    if needed := [name for name in wrong if name in _NEEDED]:
        return [*findings, *skipped(check_runs.NAMES, f"not run, because the check {needed[0]!r} failed")]
    return findings + check_runs.check_runs(found, steps=steps, num_envs=num_envs, seed=seed, measure=not wrong)


def _wrapper(wrapper: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    found: Callable[[Any], Any] = resolve(wrapper, {}, "wrappers") if isinstance(wrapper, str) else wrapper
    if not callable(found):
        raise TypeError(f"wrappers: got {wrapper!r}, which is {found!r}; expected a function of an environment.")
    return found


def _environment(env: Any, kwargs: str) -> FunctionalEnvironment | Recipe:
    functional = isinstance(env, FunctionalEnvironment)
    text, given = (f"<{env.name}>", {f"<{env.name}>": env}) if functional else given_environment(env)
    return functional_environment(text, read_kwargs(kwargs), given) or recipe(text, kwargs, (), given)
