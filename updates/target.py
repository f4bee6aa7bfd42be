"""Target network: ``init`` copies the online parameters, ``update`` applies the rule, ``read`` returns the variables.

A loss or a policy uses the variables that ``read`` returns. The state is a pytree, independent of the kind of network.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import rule as rules
from ._tree import Tree, as_dtype, as_sharded, compiled, is_averaged, map_aligned, precision_of, run
from .parts import Partition, Rule, parts_of_leaves, rules_by_part
from .rule import TargetRule
from .verbs import check_integer, move


class TargetState(NamedTuple):
    """State of a target network.

    Attributes:
        params: Target parameters. Floating-point leaves of 16 bits or fewer are kept in float32, so that small updates
            are not rounded away. None in the place of each leaf with the rule ``none``.
        count: Number of learner steps so far, ``[]`` uint32; the only counter of a target.
        state: Module state (BatchNorm statistics) of the target; empty for stateless networks.
    """

    params: Tree
    count: jax.Array  # type: ignore[assignment]  # the field hides tuple.count, which nobody needs
    state: Tree = ()


def init(rule: Rule, params: Tree, state: Tree = (), *, name: str = "") -> TargetState:
    """Initialize a target as a copy of the online parameters that shares no array with them.

    Args:
        rule: Rule of the target. A rule that is traced in later calls must be traced here too, because a target with
            the rule ``none`` keeps no copy if the rule is concrete, and keeps one if it is traced.
        params: Online parameters.
        state: Online module state.
        name: Name of the target in error messages.

    Raises:
        ValueError: If the rule is out of range, or a part matches no parameter; the message lists the modules.
        TypeError: If a leaf is not an array.

    >>> import jax.numpy as jnp
    >>> init(rules.periodic(500), {"w": jnp.array([1.0, 2.0])}).params
    {'w': Array([1., 2.], dtype=float32)}
    """
    held, _, _ = _kept(rule, params, name)
    copied, state = run(_COPY, False, (held, () if rules.is_none(rule) else state))
    return TargetState(copied, jnp.zeros((), jnp.uint32), state)


def update(
    rule: Rule,
    params: Tree,
    target: TargetState,
    increment: Any = 1,
    *,
    state: Tree = (),
    donate: bool = False,
) -> TargetState:
    """Add ``increment`` to the count of learner steps; update the target if the count crosses a multiple of the period.

    A rule does not fire at count 0. Period 500 fires at 500, 1000, ...; with increments of 12 it fires at 504, 1008,
    1500, ..., once for each crossing. Integers, booleans, PRNG keys and the module state are copied if the rule fires
    with a step size above 0. A ``Partition`` does not split the module state: it is copied if any of the rules fires,
    and the rule ``none`` fires at every step.

    Args:
        rule: Rule of the target.
        params: Online parameters after the optimizer step.
        target: State of the target; consumed if ``donate`` is True.
        increment: Number of learner steps since the last call, an integer >= 0.
        state: Online module state, copied if the rule fires. Leave it out to keep the target's module state.
        donate: Whether the memory of ``target`` may be reused.

    Raises:
        ValueError: If the rule is out of range, or ``params`` and ``target`` do not match; the message names the leaf.

    >>> import jax.numpy as jnp
    >>> online, target = {"w": jnp.array(1.0)}, init(rules.incremental(0.1), {"w": jnp.array(0.0)})
    >>> for _ in range(3):
    ...     target = update(rules.incremental(0.1), online, target)
    ...     print(round(float(target.params["w"]), 3), int(target.count))
    0.1 1
    0.19 2
    0.271 3
    """
    check_integer(increment, "increment", lowest=0)
    held, distinct, which = _kept(rule, params)
    state = () if rules.is_none(rule) else state
    moved: TargetState = run(_UPDATE, donate, target, held, state, distinct, increment, which=which)
    return moved


def read(rule: Rule, params: Tree, target: TargetState, state: Tree = ()) -> tuple[Tree, Tree]:
    """Target parameters and module state for a loss or a policy, under ``stop_gradient``.

    Args:
        rule: Rule of the target.
        params: Online parameters; they provide the leaves with the rule ``none``, and the dtypes of the other leaves.
        target: State of the target.
        state: Online module state; returned if the rule is ``none``.

    Returns:
        ``(params, state)``, in the structure and dtypes of the online trees.

    >>> import jax.numpy as jnp
    >>> online = {"w": jnp.array([1.0], jnp.bfloat16)}
    >>> read(rules.frozen(), online, init(rules.frozen(), online))[0]
    {'w': Array([1], dtype=bfloat16)}
    """
    held, _, _ = _kept(rule, params)
    slow = map_aligned(lambda _, n, o: as_dtype(o, n.dtype), held, target.params, ("params", "target"), "castable")
    params = jax.tree.map(lambda online, copy: online if copy is None else copy, params, slow)
    state = state if rules.is_none(rule) else target.state
    return jax.tree.map(_stop_gradient, params), jax.tree.map(_stop_gradient, state)


def _stop_gradient(leaf: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(leaf) if is_averaged(leaf) else leaf


def _kept(rule: Rule, params: Tree, name: str = "") -> tuple[Tree, tuple[TargetRule, ...], tuple[int, ...] | None]:
    """Leaves that a target keeps, its rules, and the index of the rule of each kept leaf.

    Leaves with the rule ``none`` are None. The indices are None if one rule applies to all leaves.
    """
    distinct = tuple(rules_by_part({"": rule}).values())
    for each in distinct:
        rules.check_rule(each)
    if not isinstance(rule, Partition):
        return (jax.tree.map(lambda _: None, params) if rules.is_none(rule) else params), distinct, None
    labels = ["", *rule.parts]
    which = [labels.index(label) for label in parts_of_leaves(rule, params, name)]
    leaves, structure = jax.tree.flatten(params)
    held = [None if rules.is_none(distinct[n]) else leaf for leaf, n in zip(leaves, which, strict=True)]
    numbers = tuple(n for n in which if not rules.is_none(distinct[n]))
    return jax.tree.unflatten(structure, held), distinct, numbers


def _copy(trees: Tree) -> Tree:
    params, state = trees

    def accumulator(leaf: jax.Array) -> jax.Array:
        dtype = precision_of(leaf.dtype) if is_averaged(leaf) else leaf.dtype
        return jnp.array(leaf, dtype, copy=True)

    return jax.tree.map(accumulator, params), jax.tree.map(jnp.copy, state)


def _update(
    target: TargetState,
    params: Tree,
    state: Tree,
    distinct: tuple[TargetRule, ...],
    increment: Any,
    *,
    which: tuple[int, ...] | None,
) -> TargetState:
    increment = jnp.asarray(increment).astype(jnp.uint32)
    fires = [_fires(rule, target.count, increment) for rule in distinct]
    step_sizes = [rules.step_size_at(rule, target.count) for rule in distinct]
    leaves = iter(which if which is not None else (0,) * len(jax.tree.leaves(params)))

    def move_leaf(_: str, new: jax.Array, old: jax.Array) -> jax.Array:
        number = next(leaves)
        return move(new, old, step_sizes[number], fires[number])

    moved = map_aligned(move_leaf, params, target.params, ("params", "target"), "castable")
    copied = target.state
    if jax.tree.leaves(state):
        any_fired = jnp.any(jnp.stack([fired & (size > 0) for fired, size in zip(fires, step_sizes, strict=True)]))
        copied = map_aligned(
            lambda _, new, old: jnp.where(any_fired, as_sharded(new, old), old),
            state,
            target.state,
            ("state", "target.state"),
        )
    return TargetState(moved, target.count + increment, copied)


def _fires(rule: TargetRule, count: jax.Array, increment: jax.Array) -> jax.Array:
    # The phase within a period is compared, so that the rule still fires after the counter wraps at 2**32 steps.
    period = jnp.maximum(jnp.asarray(rule.period), 1).astype(jnp.uint32)
    return (count % period) + increment >= period


_COPY = compiled(_copy, donate=0)
_UPDATE = compiled(_update, donate=0, static=("which",))
