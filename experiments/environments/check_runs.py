"""Conformance checks of a functional environment that run it: under random actions, and in single calls."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .findings import Finding, Verdict, attempted, judged, lengths_verdict, skipped
from .functional.lanes import advance, start
from .functional.types import FunctionalEnvironment

NAMES = (
    "determinism",
    "scan",
    "vmap",
    "starts",
    "actions",
    "action masks",
    "finite values",
    "termination",
    "episodes",
    "last observation",
    "speed",
)
_STARTS = 64  # first observations that are compared
_FEW = 8  # states, and successive steps, that are compared with single calls


class _Rollout(NamedTuple):
    """Readings of random actions in ``N`` environments, ``[T, N]`` bool, and the states at the end.

    ``finite`` is of observation and reward; ``was_start`` and ``is_start`` show whether the observation before and
    after the step is in the range of first observations.
    """

    terminated: np.ndarray
    truncated: np.ndarray
    finite: np.ndarray
    any_legal: np.ndarray
    was_start: np.ndarray
    is_start: np.ndarray
    state: Any
    legal: np.ndarray


def check_runs(
    environment: FunctionalEnvironment, *, steps: int, num_envs: int, seed: int, measure: bool = True
) -> list[Finding]:
    """Check an environment that passed ``check_traces``: compile and run it.

    Args:
        environment: Environment.
        steps: Number of steps of each environment under random legal actions.
        num_envs: Number of environments, ``N``.
        seed: Seed of all random numbers.
        measure: Whether to measure the speed if no check fails.

    >>> from polyak.experiments.environments.functional.classic_control import cartpole
    >>> findings = check_runs(cartpole(), steps=100, num_envs=2, seed=0, measure=False)
    >>> print(findings[4])
    passed          actions             2 actions give finite results
    """
    key = jax.random.key(seed)
    starts_key, rollout_key, step_key = jax.random.split(key, 3)

    def rolled() -> Any:
        starts = jax.jit(jax.vmap(environment.init))(jax.random.split(starts_key, _STARTS))
        program = jax.jit(lambda key, first: _rollout(environment, key, first, num_envs, steps))
        return starts, _Rollout(*jax.device_get(program(rollout_key, starts[1])))

    found, failed = attempted("scan", rolled, "init and step must work in jax.lax.scan and under jax.vmap.")
    if failed is not None:
        reason = "the environments cannot be stepped in scan and vmap"
        return [failed, *skipped(tuple(name for name in NAMES if name != "scan"), reason)]
    starts, rollout = found
    few = min(num_envs, _FEW)  # environments in the middle of their episodes, with legal actions
    states = jax.tree.map(lambda leaf: leaf[:few], rollout.state)
    actions = np.argmax(rollout.legal[:few], axis=1).astype(np.int32)
    inputs = jax.random.split(step_key, few), states, actions
    judges: tuple[Callable[[], Verdict], ...] = (
        lambda: _determinism(environment, inputs),
        lambda: _scan(environment, step_key),
        lambda: _vmap(environment, inputs),
        lambda: _starts(starts),
        lambda: _actions(environment, inputs, rollout.legal[:few]),
        lambda: _masks(environment, rollout),
        lambda: _finite(rollout),
        lambda: _termination(rollout),
        lambda: _episodes(rollout),
        lambda: _last_observation(rollout),
    )
    findings = [judged(name, judge) for name, judge in zip(NAMES, judges, strict=False)]
    if not measure or any(finding.status == "failed" for finding in findings):
        return findings + skipped(NAMES[-1:], "measured if all other checks pass")
    return [*findings, judged("speed", lambda: _speed(environment, rollout_key, num_envs, steps))]


def _rollout(environment: FunctionalEnvironment, key: Any, starts: Any, num_envs: int, steps: int) -> tuple[Any, ...]:
    """Fields of a ``_Rollout``, from random legal actions with a reset after the end of an episode."""
    low, high = (_float(bound) for bound in (jnp.min(starts, axis=0), jnp.max(starts, axis=0)))
    margin = (high - low) / 2  # later starts may lie outside of the range of those that were drawn

    def starting(observation: Any) -> jax.Array:
        found = _float(observation)
        return jnp.all((found >= low - margin) & (found <= high + margin))

    def one(key: jax.Array, state: Any, observation: Any) -> Any:
        action_key, step_key, reset_key = jax.random.split(key, 3)
        legal = _legal(environment, state)
        after, outcome = environment.step(step_key, state, _random_action(action_key, legal))
        last = outcome.terminated | outcome.truncated
        fresh = environment.init(reset_key)
        following = jax.tree.map(lambda new, old: jnp.where(last, new, old), fresh, (after, outcome.obs_t))
        finite = jnp.all(jnp.isfinite(_float(outcome.obs_t))) & jnp.isfinite(outcome.r_t)
        readings = outcome.terminated, outcome.truncated, finite, legal.any(), starting(observation)
        return following, (*readings, starting(outcome.obs_t))

    def body(carry: Any, count: Any) -> Any:
        return jax.vmap(one)(jax.random.split(jax.random.fold_in(key, count + 1), num_envs), *carry)

    first = jax.vmap(environment.init)(jax.random.split(jax.random.fold_in(key, 0), num_envs))
    (state, _), readings = jax.lax.scan(body, first, jnp.arange(steps))
    return (*readings, state, jax.vmap(lambda state: _legal(environment, state))(state))


def _determinism(environment: FunctionalEnvironment, inputs: Any) -> Verdict:
    for name, function, arguments in (("init", environment.init, inputs[:1]), ("step", environment.step, inputs)):
        results = []
        for _ in range(2):  # a new function is traced again, which shows Python state that a trace reads
            program = jax.jit(jax.vmap(lambda *given, function=function: function(*given)))
            results += [program(*arguments) for _ in range(2)]
        for other, when in zip(results[1:], ("in a second call", *["after it was traced again"] * 2), strict=True):
            if path := _difference(results[0], other, exact=True):
                return "failed", (
                    f"{name} returned another result for equal arguments {when}, at {path}. Use the key for all random "
                    "numbers, and keep changing values in the state, not in Python objects."
                )
    return "passed", "init and step return equal bits for equal arguments"


def _scan(environment: FunctionalEnvironment, key: jax.Array) -> Verdict:
    step = jax.jit(environment.step)
    act = jax.jit(lambda key, state: _random_action(key, _legal(environment, state)))
    initial, _ = jax.jit(environment.init)(key)
    state, keys, actions, outcomes = initial, jax.random.split(key, _FEW), [], []
    for one in keys:
        actions.append(act(one, state))
        state, outcome = step(one, state, actions[-1])
        outcomes.append(jax.device_get(outcome))
        if outcomes[-1].terminated or outcomes[-1].truncated:
            break
    program = jax.jit(lambda *given: jax.lax.scan(lambda s, x: environment.step(x[0], s, x[1]), given[0], given[1:]))
    scanned = program(initial, keys[: len(actions)], jnp.stack(actions))
    if path := _difference((state, jax.tree.map(lambda *leaves: np.stack(leaves), *outcomes)), scanned):
        return "failed", (
            f"steps in jax.lax.scan differ from single steps, at {path}. Keep changing values in the state, not in "
            "Python objects."
        )
    return "passed", f"{len(actions)} steps in scan equal single steps"


def _vmap(environment: FunctionalEnvironment, inputs: Any) -> Verdict:
    number = len(inputs[2])
    for name, function, arguments in (("init", environment.init, inputs[:1]), ("step", environment.step, inputs)):
        batched, single = jax.jit(jax.vmap(function))(*arguments), jax.jit(function)
        for lane in range(number):
            one, other = single(*_lane(arguments, lane)), _lane(batched, lane)
            if path := _difference(one, other):
                return "failed", (
                    f"{name} under jax.vmap differs from a single call, at {path}. Reduce over the axes of one "
                    "environment only, and do not read the shape of a batch."
                )
    return "passed", f"{number} environments equal single calls"


def _starts(starts: Any) -> Verdict:
    states, observations = starts
    same = _constant(observations)
    if same and all(_constant(leaf) for leaf in jax.tree.leaves(states) if not _is_key(leaf)):
        return "passed", f"the start is deterministic: {_STARTS} keys gave one state"
    if same:
        return "passed", f"{_STARTS} keys gave one first observation with different states"
    return "passed", "different keys give different first observations"


def _actions(environment: FunctionalEnvironment, inputs: Any, legal: np.ndarray) -> Verdict:
    number = environment.spec.num_actions

    def all_actions(key: jax.Array, state: Any) -> Any:
        return jax.vmap(lambda action: environment.step(key, state, action))(jnp.arange(number, dtype=jnp.int32))

    after, outcome = jax.jit(jax.vmap(all_actions))(*inputs[:2])
    values = outcome.obs_t.reshape(*legal.shape, -1)
    finite = np.isfinite(np.asarray(values)).all(axis=-1) & np.isfinite(np.asarray(outcome.r_t))
    if (wrong := np.flatnonzero((legal & ~finite).any(axis=0))).size:
        return "failed", (
            f"the legal action {wrong[0]} gave an observation or a reward that is not finite. Actions are counted from "
            f"0 to spec.num_actions - 1 = {number - 1}; check the tables that step reads with the action."
        )
    leaves = [_data(leaf) for leaf in jax.tree.leaves((after, outcome))]
    groups: dict[bytes, list[int]] = {}
    for action in range(number):
        groups.setdefault(b"".join(leaf[:, action].tobytes() for leaf in leaves), []).append(action)
    equal = [", ".join(map(str, group)) for group in groups.values() if len(group) > 1]
    note = f"; actions with equal results in {len(legal)} states: {' and '.join(equal)}" if equal else ""
    return "passed", f"{number} actions give finite results{note}"


def _masks(environment: FunctionalEnvironment, rollout: _Rollout) -> Verdict:
    if environment.action_mask is None:
        return "not applicable", "every action is always legal"
    if not rollout.any_legal.all():
        return "failed", (
            f"no action is legal in {np.sum(~rollout.any_legal)} of {rollout.any_legal.size} states before a step. "
            "Terminate the episode there, or add an action that does nothing."
        )
    return "passed", f"every one of {rollout.any_legal.size} states has a legal action"


def _finite(rollout: _Rollout) -> Verdict:
    if not rollout.finite.all():
        step, lane = np.argwhere(~rollout.finite)[0]
        return "failed", (
            f"an observation or a reward is not finite at step {step} of environment {lane}. Bound the state, or "
            "terminate the episode before it overflows."
        )
    return "passed", f"observations and rewards of {rollout.finite.size} steps are finite"


def _termination(rollout: _Rollout) -> Verdict:
    both, either = rollout.terminated & rollout.truncated, rollout.terminated | rollout.truncated
    ends, terminations = int(either.sum()), int(rollout.terminated.sum())
    if not ends:
        return "not applicable", "no episode ended"
    if ends > 1 and (both == either).all():
        return "failed", (
            f"all {ends} episodes ended terminated and truncated at once. Return terminated for the end of the task, "
            "and truncated for a time limit, after which the return bootstraps."
        )
    note = f"; {both.sum()} of them set both flags, and count as terminated" if both.any() else ""
    return "passed", f"{terminations} episodes terminated, {ends - terminations} were truncated{note}"


def _episodes(rollout: _Rollout) -> Verdict:
    last = rollout.terminated | rollout.truncated
    ends = [np.flatnonzero(lane) for lane in last.T]
    lengths = [int(length) for lane in ends for length in np.diff(lane, prepend=-1)]
    return lengths_verdict(lengths, "", *last.shape)


def _last_observation(rollout: _Rollout) -> Verdict:
    """A step that resets by itself ends in a first observation, which the other steps seldom reach."""
    last = rollout.terminated | rollout.truncated
    outside = ~rollout.was_start
    if not (last & outside).any():
        return "not applicable", "no episode ended after an observation outside of the range of first observations"
    at_end, before = (rollout.is_start[outside & chosen] for chosen in (last, ~last))
    if at_end.mean() > 0.5 and (not before.size or before.mean() < at_end.mean() / 2):
        return "failed", (
            f"{at_end.sum()} of {at_end.size} episodes ended with an observation in the range of first observations, "
            "which indicates a reset inside step. Return the state and the observation to which the action leads; the "
            "loops reset."
        )
    return "passed", f"{at_end.size - at_end.sum()} of {at_end.size} last observations differ from first observations"


def _speed(environment: FunctionalEnvironment, key: jax.Array, num_envs: int, steps: int) -> Verdict:
    def program(key: jax.Array) -> Any:
        start_key, action_key = jax.random.split(key)

        def body(carry: Any, count: Any) -> Any:
            lanes, total = carry
            keys = jax.random.split(jax.random.fold_in(action_key, count), num_envs)
            legal = jax.vmap(lambda state: _legal(environment, state))(lanes.environment)
            lanes, step = advance(environment, lanes, jax.vmap(_random_action)(keys, legal))
            return (lanes, total + _float(step.obs_t).sum() + step.r_t.sum()), None

        (_, total), _ = jax.lax.scan(body, (start(environment, start_key, num_envs), jnp.float32(0)), jnp.arange(steps))
        return total

    begun = time.perf_counter()
    compiled = jax.jit(program).lower(key).compile()
    seconds = time.perf_counter() - begun
    jax.block_until_ready(compiled(key))
    key = jax.block_until_ready(jax.random.fold_in(key, 1))
    begun = time.perf_counter()
    jax.block_until_ready(compiled(key))
    speed = steps * num_envs / (time.perf_counter() - begun)
    where = f"{num_envs} environment{'s' if num_envs > 1 else ''} on {jax.default_backend()}"
    return "passed", f"{speed:,.0f} environment steps per second with {where}, compiled in {seconds:.2f} s"


def _legal(environment: FunctionalEnvironment, state: Any) -> Any:
    return (
        jnp.ones(environment.spec.num_actions, bool)
        if environment.action_mask is None
        else environment.action_mask(state)
    )


def _random_action(key: jax.Array, legal: Any) -> jax.Array:
    return jax.random.categorical(key, jnp.where(legal, 0.0, -jnp.inf)).astype(jnp.int32)


def _float(leaf: Any) -> jax.Array:
    return jnp.asarray(leaf, jnp.float32)


def _lane(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _data(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _constant(leaf: Any) -> bool:
    return bool((np.asarray(leaf) == np.asarray(leaf)[:1]).all())


def _difference(one: Any, other: Any, *, exact: bool = False) -> str:
    """Path of the first leaf in which two results of ``init`` or ``step`` differ; empty if they are equal.

    Floating-point numbers may differ by the rounding of two programs, unless ``exact``.
    """
    for (path, leaf), equal in zip(jax.tree_util.tree_flatten_with_path(one)[0], jax.tree.leaves(other), strict=True):
        left, right = _data(leaf), _data(equal)
        if exact or left.dtype.kind != "f":
            same = left.tobytes() == right.tobytes()
        else:
            same = np.allclose(left, right, rtol=1e-4, atol=1e-5, equal_nan=True)
        if not same:
            name = jax.tree_util.keystr(path)
            return f"state{name[3:]}" if name.startswith("[0]") else name[3:].lstrip(".") or "observation"
    return ""
