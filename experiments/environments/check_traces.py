"""Conformance checks of a functional environment that need no compiled program: its traces, shapes and dtypes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .findings import Finding, Verdict, attempted, judged, skipped
from .functional.types import FunctionalEnvironment, FunctionalStep

NAMES = ("spec", "observations", "reward and flags", "state", "64-bit numbers", "host callbacks")
_WIDE = tuple(map(np.dtype, ("int64", "uint64", "float64", "complex128")))
_TRACING = (
    "Write branches on values of the key, the state or the action with jnp.where or jax.lax.cond, loops with jax.lax, "
    "and array functions with jax.numpy."
)


class _Traced(NamedTuple):
    """Abstract results of ``init``, of a step after it, and of a second step; 64-bit leaves; names of primitives."""

    start: Any
    first: Any
    second: Any
    mask: Any
    wide: list[str]
    primitives: set[str]


def check_traces(environment: FunctionalEnvironment) -> list[Finding]:
    """Check traces, shapes and dtypes of ``init``, ``step`` and ``action_mask``.

    >>> from polyak.experiments.environments.functional.classic_control import cartpole
    >>> print(check_traces(cartpole())[1])
    passed          spec                observation float32[4], 2 actions
    """
    traced, failed = attempted("traceable", lambda: _trace(environment), _TRACING)
    if failed is not None:
        return [failed, *skipped(NAMES, "not run, because the check 'traceable' failed")]
    judges: tuple[Callable[[], Verdict], ...] = (
        lambda: _spec(environment, traced),
        lambda: _observations(environment, traced),
        lambda: _reward_and_flags(traced),
        lambda: _state(traced),
        lambda: _wide(traced),
        lambda: _callbacks(traced),
    )
    findings = [judged(name, judge) for name, judge in zip(NAMES, judges, strict=True)]
    return [Finding("traceable", "passed", "jit traces init, step and the action mask"), *findings]


def _trace(environment: FunctionalEnvironment) -> _Traced:
    key, action, wide = jax.random.key(0), jax.ShapeDtypeStruct((), jnp.int32), list[str]()

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(f"{name} returned {type(result).__name__}; expected a pair that begins with the state.")
            if name == "step" and not isinstance(result[1], FunctionalStep):
                raise TypeError(f"step returned {type(result[1]).__name__} beside the state; expected FunctionalStep.")
            for path, leaf in jax.tree_util.tree_flatten_with_path(result[0])[0]:
                if getattr(leaf, "dtype", None) in _WIDE:
                    wide.append(f"state{jax.tree_util.keystr(path)} of {name} is {leaf.dtype}")
            return result

        return call

    init, step = watched("init", environment.init), watched("step", environment.step)
    init_program, started = jax.make_jaxpr(init, return_shape=True)(key)
    step_program, first = jax.make_jaxpr(step, return_shape=True)(key, started[0], action)
    second = jax.eval_shape(step, key, first[0], action) if _same_tree(started[0], first[0]) else first
    mask = None if environment.action_mask is None else jax.eval_shape(environment.action_mask, started[0])
    primitives = {*_primitives(init_program.jaxpr), *_primitives(step_program.jaxpr)}
    return _Traced(started, first, second, mask, list(dict.fromkeys(wide)), primitives)


def _primitives(jaxpr: Any) -> Iterator[str]:
    """Names of the primitives of a program, and of the programs within."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in jax.tree.leaves(equation.params, is_leaf=lambda one: hasattr(one, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _primitives(inner)


def _spec(environment: FunctionalEnvironment, traced: _Traced) -> Verdict:
    observation, actions, masked = environment.spec
    if not hasattr(observation, "shape") or np.dtype(observation.dtype) not in (np.uint8, np.float32):
        return "failed", (
            f"spec.observation: got {observation}; expected a jax.ShapeDtypeStruct of float32 or uint8. Convert "
            "observations in init and step."
        )
    if isinstance(actions, bool) or not isinstance(actions, int) or actions < 1:
        return "failed", f"spec.num_actions: got {actions!r}; expected a Python int >= 1."
    if masked != (environment.action_mask is not None):
        return "failed", (
            f"spec.action_mask is {masked}, and action_mask is {environment.action_mask}. Give action_mask=True in the "
            "spec together with the function action_mask, or neither."
        )
    if traced.mask is not None and _type(traced.mask) != f"bool[{actions}]":
        return "failed", f"action_mask returned {_type(traced.mask)}; expected bool[{actions}], one value per action."
    return "passed", f"observation {_type(observation)}, {actions} actions{', action masks' if masked else ''}"


def _observations(environment: FunctionalEnvironment, traced: _Traced) -> Verdict:
    wanted = _type(environment.spec.observation)
    for name, found in (("init", traced.start[1]), ("step", traced.first[1].obs_t), ("step", traced.second[1].obs_t)):
        if _type(found) != wanted:
            return "failed", (
                f"{name} returned an observation {_type(found)}; expected {wanted}, as spec.observation. Change the "
                f"spec, or convert the observation in {name}."
            )
    return "passed", f"init and step return {wanted}, as the spec"


def _reward_and_flags(traced: _Traced) -> Verdict:
    wanted = {"r_t": "float32[]", "terminated": "bool[]", "truncated": "bool[]"}
    for outcome in (traced.first[1], traced.second[1]):
        for field, expected in wanted.items():
            if (found := _type(getattr(outcome, field))) != expected:
                made = "jnp.float32(...)" if field == "r_t" else "jnp.bool_(...), or a comparison,"
                return (
                    "failed",
                    f"{field}: step returned {found}; expected {expected}. Return a scalar of {made} there.",
                )
    return "passed", "float32[] and bool[] at every step"


def _state(traced: _Traced) -> Verdict:
    one, *others = (_types(found[0]) for found in (traced.start, traced.first, traced.second))
    for name, other in zip(("the first step", "the second step"), others, strict=True):
        for path in [*one, *(path for path in other if path not in one)]:
            before, after = one.get(path, "absent"), other.get(path, "absent")
            if before != after:
                return "failed", (
                    f"state{path} is {before} after init and {after} after {name}. "
                    "jax.lax.scan requires equal trees, shapes and dtypes: convert with astype or reshape."
                )
    if not _same_tree(traced.start[0], traced.first[0]):
        return "failed", "the state of init and of step are trees of different types. Return the same containers."
    return "passed", f"equal shapes and dtypes after init and step (leaves: {len(one)})"


def _wide(traced: _Traced) -> Verdict:
    if traced.wide:
        return "failed", f"{traced.wide[0]}. Use 32-bit numbers: jnp.int32, jnp.float32, or jnp.asarray with a dtype."
    return "passed", "the state has none"


def _callbacks(traced: _Traced) -> Verdict:
    found = sorted(name for name in traced.primitives if "callback" in name or name in ("debug_print", "infeed"))
    if found:
        return "failed", (
            f"the program has {', '.join(found)}, which calls the host at every step. Write it with jax.numpy, and "
            "remove jax.debug.print."
        )
    return "passed", "the programs of init and step have none"


def _type(leaf: Any) -> str:
    """Dtype and shape of an array, as ``float32[4]``."""
    if not hasattr(leaf, "shape"):
        return type(leaf).__name__
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _same_tree(one: Any, other: Any) -> bool:
    structure: Any = jax.tree.structure(one)
    return bool(structure == jax.tree.structure(other))


def _types(tree: Any) -> dict[str, str]:
    return {jax.tree_util.keystr(path): _type(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
