"""Resets of parts of a learner state: reinitialization, and shrink and perturb.

Networks lose plasticity during long training. Reinitializing the last layers, and interpolating the other layers
towards newly initialized ones, restores it (Nikishin et al., 2022; D'Oro et al., 2023; Schwarzer et al., 2023). Leaves
are chosen by prefixes of their paths, in whole path components, like the parts of a target.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._tree import Tree, as_dtype, is_averaged, leaf_paths, map_aligned, path_text, precision_of
from .learner import LearnerState
from .parts import begins_with, unmatched_message

_NAMES = ("state", "fresh")


class Periodic(NamedTuple):
    """Operation on the learner state that fires when the count of learner steps crosses a multiple of its period.

    Like a target rule, it does not fire at 0, and fires once if a call crosses several multiples.

    Attributes:
        period: Number of learner steps between two firings.
        apply: Function ``(key, LearnerState) -> LearnerState``; the key is consumed.
        last: Number of learner steps after which the operation does not fire; None for no end.
    """

    period: int
    apply: Callable[[jax.Array, LearnerState], LearnerState]
    last: int | None = None

    def count(self, learner_steps: int) -> int:
        """Number of multiples of the period up to ``learner_steps``, without those after ``last``.

        >>> resets = Periodic(100, lambda key, state: state, last=200)
        >>> [resets.count(steps) for steps in (0, 99, 100, 199, 200, 1000)]
        [0, 0, 1, 1, 2, 2]
        """
        return min(learner_steps, learner_steps if self.last is None else self.last) // self.period

    def steps_since(self, learner_steps: int) -> int:
        """Number of learner steps since the operation last fired, or since step 0.

        >>> resets = Periodic(100, lambda key, state: state, last=200)
        >>> [resets.steps_since(steps) for steps in (0, 99, 100, 199, 200, 1000)]
        [0, 99, 0, 99, 0, 800]
        """
        return learner_steps - self.count(learner_steps) * self.period


def reset(state: LearnerState, fresh: LearnerState, parts: Sequence[str]) -> LearnerState:
    """Reinitialize the chosen leaves of the parameters, of every target and of the optimizer state.

    Other leaves, module state, and the counts of the optimizer and the targets keep their values, exact to the bit.

    Args:
        state: State of the learner.
        fresh: Initial state of the same learner, made with another key. If its targets were initialized with a third
            key, targets and online parameters differ after the reset.
        parts: Prefixes of leaf paths, in whole path components (``head``).

    Raises:
        ValueError: If there are no parts, a part matches no parameter (the message lists the modules), or the two
            states do not match (the message names the leaf).

    >>> import optax
    >>> from polyak.updates import LossOutput, learner
    >>> follow = learner(lambda *_: (0.0, LossOutput()), optax.adam(0.1), {})
    >>> old, new = follow.init({"head": jnp.ones(1), "torso": jnp.ones(1)}), follow.init({"head": jnp.zeros(1),
    ...     "torso": jnp.zeros(1)})
    >>> {name: leaf.tolist() for name, leaf in reset(old, new, ["head"]).params.items()}
    {'head': [0.0], 'torso': [1.0]}
    """
    moved = _map_parts(lambda old, new: jnp.array(new), state, fresh, parts)
    return moved._replace(optimizer_state=_reset_optimizer(state, fresh, parts))


def shrink_and_perturb(state: LearnerState, fresh: LearnerState, parts: Sequence[str], shrink: Any) -> LearnerState:
    """Replace the chosen leaves of parameters and targets by ``shrink * old + (1 - shrink) * fresh``.

    Shrink and perturb (Ash and Adams, 2020), with a newly initialized network as the noise (D'Oro et al., 2023). The
    optimizer state, integer and boolean leaves and all other leaves are kept.

    Args:
        state: State of the learner.
        fresh: Initial state of the same learner, made with another key.
        parts: Prefixes of leaf paths, in whole path components (``torso``).
        shrink: Weight of the old leaves, in [0, 1].

    Raises:
        ValueError: If ``shrink`` is out of range, there are no parts, a part matches no parameter (the message lists
            the modules), or the two states do not match (the message names the leaf).

    >>> import optax
    >>> from polyak.updates import LossOutput, learner
    >>> follow = learner(lambda *_: (0.0, LossOutput()), optax.adam(0.1), {})
    >>> old, new = follow.init({"torso": jnp.ones(1)}), follow.init({"torso": jnp.zeros(1)})
    >>> shrink_and_perturb(old, new, ["torso"], 0.75).params["torso"].tolist()
    [0.75]
    """
    if isinstance(shrink, int | float) and not 0 <= shrink <= 1:
        raise ValueError(f"shrink: got {shrink}; expected a number in [0, 1], the weight of the old leaves. Try 0.8.")

    def mixed(old: Any, new: Any) -> Any:
        if not is_averaged(old):
            return old
        accumulated = precision_of(old.dtype)
        return as_dtype(
            shrink * jnp.asarray(old, accumulated) + (1 - shrink) * jnp.asarray(new, accumulated), old.dtype
        )

    return _map_parts(mixed, state, fresh, parts)


def _map_parts(
    function: Callable[[Any, Any], Any], state: LearnerState, fresh: LearnerState, parts: Sequence[str]
) -> LearnerState:
    """Apply ``function(old, fresh)`` to the leaves of ``parts`` in parameters and targets."""
    check_parts(parts, state.params)

    def mapped(old: Tree, new: Tree) -> Tree:
        return map_aligned(lambda path, x, y: function(x, y) if begins_with(path, parts) else x, old, new, _NAMES)

    targets = {
        name: slow._replace(params=mapped(slow.params, fresh.targets[name].params))
        for name, slow in state.targets.items()
    }
    return state._replace(params=mapped(state.params, fresh.params), targets=targets)


def _reset_optimizer(state: LearnerState, fresh: LearnerState, parts: Sequence[str]) -> Tree:
    """Replace the optimizer state of the parameters of ``parts``, whose paths end with the paths of the parameters."""
    paths = leaf_paths(state.params)

    def is_reset(path: str) -> bool:
        owners = [own for own in paths if f"/{path}".endswith(f"/{own}")]
        return bool(owners) and begins_with(max(owners, key=len), parts)

    entries, structure = jax.tree_util.tree_flatten_with_path(state.optimizer_state)
    leaves = [
        jnp.array(new) if is_reset(path_text(path)) else old
        for (path, old), new in zip(entries, jax.tree.leaves(fresh.optimizer_state), strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def check_parts(parts: Sequence[str], params: Tree, field: str = "parts") -> None:
    """Check that every part is a prefix of the path of a parameter.

    Args:
        parts: Prefixes of leaf paths, in whole path components.
        params: Parameters, or their shapes.
        field: Name of the field, which begins the error message.

    Raises:
        ValueError: If there are no parts, or a part matches no parameter; the message lists the modules.

    >>> check_parts(["heat"], {"head": {"w": 0.0}})
    Traceback (most recent call last):
    ValueError: parts: no parameter matches 'heat'; the modules are head. Did you mean 'head'?
    """
    if isinstance(parts, str) or not parts:
        raise ValueError(f"{field}: got {parts!r}; expected a list of prefixes of module paths, for example ['head'].")
    paths = leaf_paths(params)
    for prefix in parts:
        if not any(begins_with(path, [prefix]) for path in paths):
            raise ValueError(unmatched_message(field, "", prefix, paths))
