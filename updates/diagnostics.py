"""Diagnostics of target networks: parameter distance and learner steps since the last update."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from . import target as target_module
from ._tree import Tree, is_averaged
from .learner import Target
from .parts import Partition, Rule, parts_of_leaves, rules_by_part
from .rule import TargetRule
from .target import TargetState


def target_distance(rule: Rule, params: Tree, target: TargetState) -> jax.Array:
    """Euclidean norm of online minus target parameters over all floating-point leaves, a float32 scalar.

    >>> from polyak.updates import periodic
    >>> from polyak.updates.target import init
    >>> target = init(periodic(500), {"w": jnp.zeros(2)})
    >>> float(target_distance(periodic(500), {"w": jnp.array([3.0, 4.0])}, target))
    5.0
    """
    return _norm([gap for gap in _gaps(rule, params, target) if gap is not None])


def distances(
    targets: Mapping[str, Target], params: Tree, target_states: Mapping[str, TargetState]
) -> dict[str, jax.Array]:
    """Distances (:func:`target_distance`) of every named target and of every part of a target.

    Args:
        targets: Mapping from name to target.
        params: Online parameters of the learner, before the selection of each target.
        target_states: Mapping from name to the state of the target, as in ``LearnerState.targets``.

    Returns:
        Mapping to float32 scalars, with the keys ``name`` for all leaves of a target and ``name/prefix`` for the
        leaves of a part. A part with the rule ``none`` has distance 0.

    >>> from polyak.updates import init_targets, none, partition, periodic
    >>> targets = {"q": Target(partition(periodic(500), {"head": periodic(100), "torso": none()}))}
    >>> states = init_targets(targets, {"head": jnp.zeros(2), "rest": jnp.zeros(()), "torso": jnp.zeros(())})
    >>> online = {"head": jnp.array([3.0, 4.0]), "rest": jnp.array(12.0), "torso": jnp.array(7.0)}
    >>> {name: float(distance) for name, distance in distances(targets, online, states).items()}
    {'q': 13.0, 'q/head': 5.0, 'q/torso': 0.0}
    """
    found: dict[str, jax.Array] = {}
    for name, named in targets.items():
        selected = named.select(params)
        gaps = _gaps(named.rule, selected, target_states[name])
        found[name] = _norm([gap for gap in gaps if gap is not None])
        if isinstance(named.rule, Partition):
            parts = list(zip(gaps, parts_of_leaves(named.rule, selected, name), strict=True))
            for prefix in named.rule.parts:
                of_part = [gap for gap, part in parts if part == prefix and gap is not None]
                found[f"{name}/{prefix}"] = _norm(of_part)
    return found


def steps_since_update(rule: TargetRule, target: TargetState) -> jax.Array:
    """Number of learner steps since the last multiple of the period (since step 0 if frozen), a uint32 scalar.

    If the target is updated after every learner step, the rule last fired at that multiple.

    >>> from polyak.updates import periodic
    >>> from polyak.updates.target import TargetState
    >>> int(steps_since_update(periodic(500), TargetState((), jnp.uint32(1203))))
    203
    """
    period = jnp.maximum(jnp.asarray(rule.period), 1).astype(jnp.uint32)
    return jnp.where(jnp.asarray(rule.step_size) > 0, target.count % period, target.count)


def steps_since_updates(
    targets: Mapping[str, Target], target_states: Mapping[str, TargetState]
) -> dict[str, jax.Array]:
    """Numbers of learner steps since the rules of every named target and of every part of a target last fired.

    Args:
        targets: Mapping from name to target.
        target_states: Mapping from name to the state of the target, as in ``LearnerState.targets``.

    Returns:
        Mapping to uint32 scalars (see :func:`steps_since_update`), with the keys ``name`` for the main rule of a
        target and ``name/prefix`` for the rule of a part. The number is 0 for the rule ``none``.

    >>> from polyak.updates import none, partition, periodic
    >>> targets = {"q": Target(partition(periodic(500), {"head": periodic(100), "torso": none()}))}
    >>> since = steps_since_updates(targets, {"q": TargetState((), jnp.uint32(1203))})
    >>> {name: int(steps) for name, steps in since.items()}
    {'q': 203, 'q/head': 3, 'q/torso': 0}
    """
    return {
        key: steps_since_update(rule, target_states[name])
        for name, named in targets.items()
        for key, rule in rules_by_part({name: named.rule}).items()
    }


def gradient_norm(gradients: Tree) -> jax.Array:
    """Euclidean norm of a tree of gradients (``optax.tree.norm``).

    >>> float(gradient_norm({"w": jnp.array([3.0, 4.0])}))
    5.0
    """
    return jnp.asarray(optax.tree.norm(gradients))


def _gaps(rule: Rule, params: Tree, target: TargetState) -> list[jax.Array | None]:
    """Online minus target leaves in float32; None for each leaf that is copied and not averaged."""
    slow, _ = target_module.read(rule, params, target)
    return [
        new.astype(jnp.float32) - old.astype(jnp.float32) if is_averaged(new) else None
        for new, old in zip(jax.tree.leaves(params), jax.tree.leaves(slow), strict=True)
    ]


def _norm(gaps: list[jax.Array]) -> jax.Array:
    return jnp.asarray(optax.tree.norm(gaps), jnp.float32)
