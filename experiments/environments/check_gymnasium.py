"""Conformance checks of a Gymnasium environment: Gymnasium's own, and the rules on which the loops rely."""

import contextlib
import copy
import numbers
import re
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env, data_equivalence

from .findings import Finding, Verdict, attempted, judged, lengths_verdict, skipped
from .make import make_one
from .spaces import read_spaces
from .worker import OLD_API, OldApiError, Recipe, kept_state, set_kept_state

PLAYED = ("observations", "rewards and flags", "action masks", "buffers", "episodes", "resume", "speed")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_REPLAYED = 50  # steps that are replayed from a seed


class _Step(NamedTuple):
    """One result of ``step``, with copies of the arrays."""

    action: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    mask: Any
    reused: bool  # whether the observation before has changed
    seconds: float  # of the step, and of a reset after it

    @property
    def last(self) -> bool:
        return bool(self.terminated or self.truncated)


def check_gymnasium(recipe: Recipe, *, steps: int, seed: int) -> list[Finding]:
    """Check one Gymnasium environment.

    Args:
        recipe: Recipe of the environment.
        steps: Number of steps under random legal actions.
        seed: Seed of actions and resets.

    >>> from polyak.experiments.environments.make import recipe
    >>> [finding.check for finding in check_gymnasium(recipe("FrozenLake-v1"), steps=20, seed=0)][:3]
    ['gymnasium', 'spaces', 'seeds']
    """
    with contextlib.closing(make_one(recipe)) as env:
        findings = [*_gymnasium(env), judged("spaces", lambda: _spaces(env)), judged("seeds", lambda: _seeds(env))]
        way_out = "The environment must step with every legal action until an episode ends."
        played, failed = attempted("observations", lambda: _play(env, steps, seed), way_out)
        if failed is not None:
            return [*findings, failed, *skipped(PLAYED[1:], "the environment cannot be played")]
        judges: tuple[Callable[[], Verdict], ...] = (
            lambda: _observations(env, played),
            lambda: _rewards_and_flags(played),
            lambda: _masks(env, played),
            lambda: _buffers(played),
            lambda: _episodes(played),
            lambda: _resume(recipe, seed),
            lambda: _speed(played),
        )
        return findings + [judged(name, judge) for name, judge in zip(PLAYED, judges, strict=True)]


def _gymnasium(env: Any) -> list[Finding]:
    """Result of Gymnasium's checker, and one finding for each of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finding = judged("gymnasium", lambda: _checked(env))
    if "share an object" in finding.detail:  # since Gymnasium 1.4
        finding = Finding("gymnasium", "warning", f"{finding.detail} polyak allows it, because its loops copy them.")
    texts = dict.fromkeys(_COLORS.sub("", str(one.message)).removeprefix("WARN: ") for one in caught)
    found = [
        Finding("gymnasium", "warning", text) for text in texts if "different from the unwrapped version" not in text
    ]
    return found if found and finding.status == "passed" else [finding, *found]


def _checked(env: Any) -> Verdict:
    check_env(env, skip_render_check=True, skip_close_check=True)
    return "passed", "check_env raised no error and no warning"


def _spaces(env: Any) -> Verdict:
    spec = read_spaces(env.observation_space, env.action_space).spec
    return "passed", f"stored as {spec.observation.dtype}{list(spec.observation.shape)}, {spec.num_actions} actions"


def _seeds(env: Any) -> Verdict:
    one, other, *others = (copy.deepcopy(env.reset(seed=seed)[0]) for seed in (0, 0, 1, 2, 3))
    if not _equal(one, other):
        return "failed", (
            "two resets with seed 0 gave different observations. Call super().reset(seed=seed) in reset, and draw all "
            "random numbers from self.np_random."
        )
    if all(_equal(one, third) for third in others):
        return "passed", "equal seeds give equal starts; the seeds 0 to 3 give one first observation"
    return "passed", "equal seeds give equal starts, and different seeds give different starts"


def _play(env: Any, steps: int, seed: int, actions: Any = None) -> list[_Step]:
    """Steps under random legal actions, or under ``actions``; as in the loops, every episode has a seed of its own."""
    random, seeds = np.random.default_rng(seed), np.random.default_rng(seed)
    observation, info = env.reset(seed=seed)
    played: list[_Step] = []
    for count in range(steps):
        action = _action(env, random, _mask(info)) if actions is None else actions[count]
        before, begun = copy.deepcopy(observation), time.perf_counter()
        if len(result := env.step(action)) != 5:
            raise OldApiError(f"step did not return 5 values. {OLD_API}")
        seen, reward, terminated, truncated, info = result
        kept, mask = copy.deepcopy(seen), _mask(info)
        seconds, reused = time.perf_counter() - begun, not _equal(before, observation)
        if terminated or truncated:
            begun = time.perf_counter()
            seen, info = env.reset(seed=int(seeds.integers(2**31)))
            seconds += time.perf_counter() - begun
        played.append(_Step(action, kept, reward, terminated, truncated, mask, reused, seconds))
        observation = seen
    return played


def _action(env: Any, random: np.random.Generator, mask: Any) -> Any:
    space = env.action_space
    if not isinstance(space, gym.spaces.Discrete):
        space.seed(int(random.integers(2**31)))
        return space.sample()
    legal = np.arange(space.n) if mask is None or np.shape(mask) != (space.n,) else np.flatnonzero(mask)
    return space.start + random.choice(legal) if legal.size else space.start


def _observations(env: Any, played: list[_Step]) -> Verdict:
    for count, step in enumerate(played):
        if not env.observation_space.contains(step.observation):
            found = np.asarray(step.observation)
            numeric = found.dtype.kind in "fiub" and found.size
            about = f" {found.dtype}{list(found.shape)} from {found.min()} to {found.max()}" if numeric else ""
            return "failed", (
                f"the observation{about} of step {count} is not in {env.observation_space}. Correct the bounds, the "
                "shape or the dtype of the space, or convert the observation."
            )
        arrays = step.observation.values() if isinstance(step.observation, dict) else [step.observation]
        if not all(np.isfinite(one).all() for one in arrays if np.asarray(one).dtype.kind in "fiub"):
            return (
                "failed",
                f"the observation of step {count} is not finite. Bound the state or end the episode before.",
            )
    return "passed", f"{len(played)} observations are finite and in the space"


def _rewards_and_flags(played: list[_Step]) -> Verdict:
    for count, step in enumerate(played):
        reward = np.asarray(step.reward)
        if reward.shape != () or not isinstance(reward.item(), numbers.Real) or not np.isfinite(reward):
            return "failed", f"the reward of step {count} is {step.reward!r}; expected one finite number."
        flags = step.terminated, step.truncated
        if not all(isinstance(flag, bool | np.bool_) for flag in flags):
            return "failed", f"terminated and truncated of step {count} are {flags}; expected two bools."
    terminated, truncated = (sum(bool(getattr(one, name)) for one in played) for name in ("terminated", "truncated"))
    return "passed", f"rewards are finite numbers; {terminated} terminations, {truncated} truncations"


def _masks(env: Any, played: list[_Step]) -> Verdict:
    masks = [step.mask for step in played if not step.last]
    if all(mask is None for mask in masks):
        return "not applicable", 'info has no "action_mask"'
    for count, mask in enumerate(masks):
        if np.shape(mask) != (env.action_space.n,) or not np.any(mask):
            return "failed", (
                f'info["action_mask"] is {mask} after step {count}; expected {env.action_space.n} values, one for each '
                "action, of which one is not 0."
            )
    return "passed", f"{len(masks)} masks have a legal action; use them with --action-mask"


def _buffers(played: list[_Step]) -> Verdict:
    if any(step.reused for step in played):
        return "passed", "step writes observations to one array, which is allowed: polyak copies them"
    return "passed", "every step returns a new observation"


def _episodes(played: list[_Step]) -> Verdict:
    ends = np.flatnonzero([step.last for step in played])
    lengths = [int(length) for length in np.diff(ends, prepend=-1)]
    sums = np.cumsum([float(step.reward) for step in played])[ends]
    returns = np.diff(sums, prepend=0.0)
    about = f", with returns from {returns.min():g} to {returns.max():g}" if lengths else ""
    return lengths_verdict(lengths, about, len(played), 1)


def _speed(played: list[_Step]) -> Verdict:
    speed = len(played) / sum(step.seconds for step in played)
    return "passed", f"{speed:,.0f} environment steps per second with one environment, resets included"


def _resume(recipe: Recipe, seed: int) -> Verdict:
    """Compare a used environment with a new one that replays its actions, as a resumed run does."""
    with contextlib.closing(make_one(recipe)) as env, contextlib.closing(make_one(recipe)) as other:
        _play(env, _REPLAYED, seed)
        kept = kept_state(env)
        steps = _play(env, _REPLAYED, seed + 1)
        set_kept_state(other, kept)
        again = _play(other, len(steps), seed + 1, [step.action for step in steps])
    for count, (one, two) in enumerate(zip(steps, again, strict=True)):
        if not (_equal(one.observation, two.observation) and one.reward == two.reward and one.last == two.last):
            return "failed", (
                f"a new environment with equal seed and actions differs at step {count}, as a resumed run would. "
                "Seed all random numbers in reset, and add get_state and set_state for state that outlasts an episode."
            )
    how = "get_state, set_state and " if kept is not None else ""
    return "passed", f"{how}a replay of {len(steps)} actions gave equal results in a new environment"


def _mask(info: Any) -> Any:
    return copy.deepcopy(info.get("action_mask")) if isinstance(info, dict) else None


def _equal(one: Any, other: Any) -> bool:
    return bool(data_equivalence(one, other, exact=True))
