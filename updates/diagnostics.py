"""How far the slow copy is behind: what a run logs of its targets."""

import jax
import jax.numpy as jnp
import optax

from . import target as target_module
from ._tree import Tree, is_averaged
from .rule import TargetRule
from .target import Rule, TargetState


def target_distance(rule: Rule, params: Tree, target: TargetState) -> jax.Array:
    """The Euclidean norm of online minus target parameters, over all floating-point leaves: a float32 scalar.

    >>> from polyak.updates import periodic
    >>> from polyak.updates.target import init
    >>> target = init(periodic(500), {"w": jnp.zeros(2)})
    >>> float(target_distance(periodic(500), {"w": jnp.array([3.0, 4.0])}, target))
    5.0
    """
    slow, _ = target_module.read(rule, params, target)
    gaps = [
        new.astype(jnp.float32) - old.astype(jnp.float32)
        for new, old in zip(jax.tree.leaves(params), jax.tree.leaves(slow), strict=True)
        if is_averaged(new)
    ]
    return jnp.asarray(optax.tree.norm(gaps), jnp.float32)


def steps_since_update(rule: TargetRule, target: TargetState) -> jax.Array:
    """Learner steps since the last multiple of the period (since the beginning, if frozen): a uint32 scalar.

    That is when the rule last fired, where it is updated after every learner step.

    >>> from polyak.updates import periodic
    >>> from polyak.updates.target import TargetState
    >>> int(steps_since_update(periodic(500), TargetState((), jnp.uint32(1203))))
    203
    """
    period = jnp.maximum(jnp.asarray(rule.period), 1).astype(jnp.uint32)
    return jnp.where(jnp.asarray(rule.step_size) > 0, target.count % period, target.count)


def gradient_norm(gradients: Tree) -> jax.Array:
    """The Euclidean norm of a tree of gradients (``optax.tree.norm``).

    >>> float(gradient_norm({"w": jnp.array([3.0, 4.0])}))
    5.0
    """
    return jnp.asarray(optax.tree.norm(gradients))
