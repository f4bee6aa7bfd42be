"""Surgery on parts of a learner state: reinitialization, shrink and perturb, and the shift of a chain of heads.

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
    return moved._replace(optimizer_state=_map_optimizer(lambda old, owner, new: jnp.array(new), state, parts, fresh))


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


def shift_heads(
    state: LearnerState, parts: Sequence[str], num_heads: int, *, shift_moments: bool = False
) -> LearnerState:
    """Copy each head of a chain to the place before it: head ``k`` becomes head ``k + 1``; the last head is kept.

    The heads are ``num_heads`` blocks of equal size in the last axis of the chosen leaves, such as the kernel
    ``[D, num_heads * A]`` and the bias ``[num_heads * A]`` of a linear layer (iS-DQN, Vincent et al., 2026). The blocks
    move in the parameters and in every target. All other leaves, module state and counts keep their values, exact to
    the bit.

    Args:
        state: State of the learner.
        parts: Prefixes of leaf paths, in whole path components (``head/q_values``).
        num_heads: Number of heads in the chain, at least 2, including head 0.
        shift_moments: Whether the blocks move in the optimizer state too. Moments of head 0 are then 0, because a loss
            that uses head 0 in bootstrap targets only must not move it.

    Raises:
        ValueError: If ``num_heads`` is not an integer of at least 2, there are no parts, a part matches no parameter
            (the message lists the modules), or the last axis of a leaf does not have ``num_heads`` equal blocks (the
            message names the leaf).

    >>> import optax
    >>> from polyak.updates import LossOutput, learner
    >>> follow = learner(lambda *_: (0.0, LossOutput()), optax.adam(0.1), {})
    >>> state = follow.init({"head": jnp.arange(6.0), "torso": jnp.ones(1)})
    >>> shift_heads(state, ["head"], num_heads=3).params["head"].tolist()
    [2.0, 3.0, 4.0, 5.0, 4.0, 5.0]
    """
    if isinstance(num_heads, bool) or not isinstance(num_heads, int) or num_heads < 2:
        raise ValueError(
            f"num_heads: got {num_heads!r}; expected an integer >= 2, the number of heads including head 0. Try 2."
        )
    check_parts(parts, state.params)

    def shifted(path: Any, leaf: jax.Array) -> jax.Array:
        return _shift(leaf, num_heads, path_text(path)) if begins_with(path_text(path), parts) else leaf

    targets = {
        name: slow._replace(params=jax.tree_util.tree_map_with_path(shifted, slow.params))
        for name, slow in state.targets.items()
    }
    moved = state._replace(params=jax.tree_util.tree_map_with_path(shifted, state.params), targets=targets)
    if not shift_moments:
        return moved
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(state.params)]

    def moments(leaf: jax.Array, owner: int) -> jax.Array:
        if jnp.shape(leaf) != shapes[owner]:  # a factored moment, or a count of a parameter
            return leaf
        after = _shift(leaf, num_heads, "optimizer_state")
        return after.at[..., : leaf.shape[-1] // num_heads].set(0)

    return moved._replace(optimizer_state=_map_optimizer(moments, state, parts))


def _shift(leaf: jax.Array, num_heads: int, path: str) -> jax.Array:
    """Drop the first of ``num_heads`` blocks of the last axis, and repeat the last one."""
    shape = jnp.shape(leaf)
    if not shape or shape[-1] % num_heads:
        raise ValueError(
            f"{path}: got shape {shape}, whose last axis does not have {num_heads} blocks of equal size; expected the "
            "outputs of all heads, side by side. Name only the last layer in parts."
        )
    size = shape[-1] // num_heads
    return jnp.concatenate([leaf[..., size:], leaf[..., -size:]], axis=-1)


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


def _map_optimizer(
    function: Callable[..., Any], state: LearnerState, parts: Sequence[str], *others: LearnerState
) -> Tree:
    """Apply ``function(leaf, owner, *others)`` to the optimizer state of the parameters of ``parts``.

    The path of such a leaf ends with the path of its parameter; ``owner`` is the index of the parameter.
    """
    paths = leaf_paths(state.params)

    def owner_of(path: str) -> int | None:
        owners = [own for own in paths if f"/{path}".endswith(f"/{own}")]
        longest = max(owners, key=len, default="")
        return paths.index(longest) if owners and begins_with(longest, parts) else None

    entries, structure = jax.tree_util.tree_flatten_with_path(state.optimizer_state)
    columns = [jax.tree.leaves(other.optimizer_state) for other in others]
    leaves = []
    for (path, leaf), *rest in zip(entries, *columns, strict=True):
        owner = owner_of(path_text(path))
        leaves.append(leaf if owner is None else function(leaf, owner, *rest))
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
