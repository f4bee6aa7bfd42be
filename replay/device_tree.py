"""Sum tree over priorities with 16 children per node, in float32 JAX arrays, for prioritized sampling under a trace.

Every sum is recomputed from its 16 children and never updated by a difference, so rounding errors do not accumulate.

One draw descends from the top level of at most 16 entries. The mass to descend to is a pair of float32 numbers whose
sum is exact to about 45 bits, because a single float32 number cannot distinguish a million leaves. At each node, only
children above 0 are candidates, and the last of them is taken if rounding leaves a mass beyond their sum. A sum is 0
only if all of its leaves are 0, so a leaf of 0 is never found while another leaf is above 0.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .types import Array

_SHIFT = 4
_BRANCHES = 1 << _SHIFT
_UP_TO = np.triu(np.ones((_BRANCHES, _BRANCHES)))  # row @ _UP_TO is the cumulative sum of the row
SMALLEST = float(np.finfo(np.float32).tiny)  # smaller numbers are flushed to 0 by some processors
_LARGEST = float(np.finfo(np.float32).max)


class SumTree(NamedTuple):
    """Sum tree, a pytree of arrays.

    Attributes:
        leaves: Leaves, float32, padded with zeros to a multiple of 16.
        sums: Sums of each level from bottom to top: sums of 16 leaves, sums of 16 of these sums, and so on, each padded
            with zeros to a multiple of 16. The top level has 16 entries.
    """

    leaves: Array
    sums: tuple[Array, ...]


def init(number: int) -> SumTree:
    """Make a tree over ``number`` >= 1 leaves, all 0.

    >>> tree = init(100)
    >>> tree.leaves.shape, [level.shape for level in tree.sums]
    ((112,), [(16,)])
    """
    sizes = [_padded(number)]
    while sizes[-1] > _BRANCHES:
        sizes.append(_padded(sizes[-1] // _BRANCHES))
    leaves, *sums = (jnp.zeros(size, jnp.float32) for size in sizes)
    return SumTree(leaves, tuple(sums))


def build(leaves: Array) -> SumTree:
    """Make a tree with these leaves, which may also be integers.

    >>> build(jnp.arange(20)).sums[0][:3].tolist()
    [120, 70, 0]
    """
    levels = [jnp.pad(leaves, (0, _padded(len(leaves)) - len(leaves)))]
    while len(levels[-1]) > _BRANCHES:
        above = _sum(levels[-1].reshape(-1, _BRANCHES))
        levels.append(jnp.pad(above, (0, _padded(len(above)) - len(above))))
    return SumTree(levels[0], tuple(levels[1:]))


def assign(tree: SumTree, index: Array, values: Array, kept: Array) -> SumTree:
    """Set leaves and recompute the sums above them.

    Args:
        tree: Tree.
        index: Indices of the leaves, ``[K]`` int32. If an index is repeated, its values must be equal.
        values: Values of the leaves, ``[K]`` float32, from 0 to ``largest_priority``.
        kept: Whether to set each leaf, ``[K]`` bool.

    >>> tree = assign(init(100), jnp.array([3, 5, 7]), jnp.array([4.0, 2.0, 9.0]), jnp.array([True, True, False]))
    >>> tree.leaves[:8].tolist(), float(total(tree))
    ([0.0, 0.0, 0.0, 4.0, 0.0, 2.0, 0.0, 0.0], 6.0)
    """
    leaves = tree.leaves.at[jnp.where(kept, index, len(tree.leaves))].set(values, mode="drop")
    below, node, sums = leaves, index, []
    for level in tree.sums:
        node = node >> _SHIFT
        parts = _sum(_children(below, node))
        below = level.at[jnp.where(kept, node, len(level))].set(parts, mode="drop")
        sums.append(below)
    return SumTree(leaves, tuple(sums))


def total(tree: SumTree) -> Array:
    """Sum of all leaves, ``[]``.

    >>> float(total(init(100)))
    0.0
    """
    return _sum((tree.leaves, *tree.sums)[-1].reshape(1, _BRANCHES))[0]


def stratified(tree: SumTree, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Draw leaves with probability proportional to their values, one in each of ``shape[-1]`` equal intervals.

    Args:
        tree: Tree with a total above 0.
        key: Typed key of ``jax.random``.
        shape: Shape of the draw; the intervals are along its last axis.

    Returns:
        Indices of the leaves, int32, and their values, float32, of ``shape``.

    >>> tree = build(jnp.array([0.0, 1.0, 0.0, 3.0]))
    >>> index, values = stratified(tree, jax.random.key(0), (4,))
    >>> index.tolist(), values.tolist()
    ([1, 3, 3, 3], [1.0, 3.0, 3.0, 3.0])
    """
    # The numerator holds the interval and, in the rest of its 24 bits, the high bits of a random word. The total is
    # split in two, so the four products are exact.
    fraction = max(0, 24 - math.ceil(math.log2(shape[-1])))
    bits = jax.random.bits(key, shape, jnp.uint32)
    interval = jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.uint32) << fraction, shape)
    numerator = interval | (bits >> (31 - fraction) >> 1)
    high, low = _scaled(numerator >> 12, fraction - 12), _scaled(numerator & np.uint32(0xFFF), fraction)
    lowest = _scaled(bits << fraction >> 8, fraction + 24)
    scale = total(tree) * np.float32(1 / shape[-1])
    coarse = jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(scale, jnp.uint32) & np.uint32(0xFFFFF000), jnp.float32
    )
    fine = scale - coarse
    return find(tree, high * coarse, high * fine + (low * coarse + (low * fine + lowest * scale)))


def find(tree: SumTree, mass: Array, rest: Array) -> tuple[Array, Array]:
    """Find the leaves at which the cumulative sum of the leaves exceeds ``mass + rest``.

    Args:
        tree: Tree with a total above 0, of floats or integers.
        mass: Numbers of any shape, from 0 to the total, in the dtype of the tree.
        rest: Low bits of the mass, of the same shape; 0 for integers.

    Returns:
        Indices of the leaves, int32, and their values.

    >>> index, values = find(build(jnp.array([0, 4, 0, 2])), jnp.array([0, 3, 4, 9]), jnp.zeros(4, jnp.int32))
    >>> index.tolist(), values.tolist()
    ([1, 1, 3, 3], [4, 4, 2, 2])
    """
    shape, mass, rest = mass.shape, mass.reshape(-1), rest.reshape(-1)
    node = jnp.zeros(mass.shape, jnp.int32)
    for level in (tree.leaves, *tree.sums)[::-1]:
        child, before = _choose(_children(level, node), mass, rest)
        node = (node << _SHIFT) + child
        mass, rest = _two_sum(mass - before, rest)
    return node.reshape(shape), tree.leaves.at[node].get(mode="clip").reshape(shape)


def largest_priority(number: int) -> float:
    """Largest value of a leaf for which the sum of ``number`` leaves is finite."""
    return _LARGEST / 2 / number


def is_valid(tree: SumTree) -> bool:
    """Return whether every sum equals the sum of its children, up to rounding, on concrete arrays.

    >>> is_valid(init(100)), is_valid(init(100)._replace(leaves=jnp.ones(112)))
    (True, False)
    """
    below = np.asarray(tree.leaves)
    for level in map(np.asarray, tree.sums):
        parts = np.asarray(np.sum(below.reshape(-1, _BRANCHES), axis=1, dtype=np.float64))
        if not np.allclose(level[: len(parts)], parts, rtol=1e-6, atol=0) or level[len(parts) :].any():
            return False
        below = level
    return True


def _padded(number: int) -> int:
    return -(-number // _BRANCHES) * _BRANCHES


def _children(level: Array, node: Array) -> Array:
    """Children ``[K, 16]`` of the nodes ``[K]``."""
    return level.reshape(-1, _BRANCHES).at[node].get(mode="clip")


def _sum(children: Array) -> Array:
    """Sum of each row of ``[K, 16]``."""
    return jnp.sum(children, axis=1, dtype=children.dtype)


def _choose(children: Array, mass: Array, rest: Array) -> tuple[Array, Array]:
    """Choose the child of each row whose cumulative sum exceeds the mass; also return the sum before it.

    If rounding leaves a mass beyond the sum of all children, the last child above 0 is chosen.
    """
    running = jnp.matmul(children, _UP_TO.astype(children.dtype), precision=jax.lax.Precision.HIGHEST)
    column = jnp.arange(_BRANCHES, dtype=jnp.int32)[None]
    beyond = running - mass[:, None] > rest[:, None]
    score = jnp.where(children > 0, jnp.where(beyond, 2 * _BRANCHES - column, column), 0)
    best = jnp.max(score, axis=1)
    child = jnp.where(best > _BRANCHES, 2 * _BRANCHES - best, best)
    flat = jnp.arange(len(mass), dtype=jnp.int32) * _BRANCHES + child
    before = running.reshape(-1).at[jnp.maximum(flat - 1, 0)].get(mode="clip")
    return child, jnp.where(child > 0, before, 0)


def _two_sum(one: Array, other: Array) -> tuple[Array, Array]:
    """Sum of two numbers, and its rounding error (Knuth, The Art of Computer Programming, volume 2, section 4.2.2)."""
    total = one + other
    part = total - one
    return total, (one - (total - part)) + (other - part)


def _scaled(integers: Array, exponent: int) -> Any:
    """Integers below 2**24 divided by ``2**exponent``, exact."""
    return integers.astype(jnp.float32) * np.float32(2.0**-exponent)
