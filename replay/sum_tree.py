"""Sum tree over priorities with 16 children per node, in NumPy arrays, for prioritized sampling.

Every sum is recomputed from its 16 children and never updated by a difference, so rounding errors do not accumulate.
Assigning a leaf only marks the sum above it as stale. ``refresh`` recomputes all stale sums, so leaves may change many
times between two samples.

Sampling descends from the prefix sums of the top level, for all rows of a batch together. It takes a few NumPy calls
for each level; a million leaves have two levels below the top.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_SHIFT = 4
_BRANCHES = 1 << _SHIFT
_UP_TO = np.triu(np.ones((_BRANCHES, _BRANCHES)))  # row @ _UP_TO is the cumulative sum of the row
_TOP = 1 << 12  # prefix sums of so many entries cost about as much as a further level

# The type annotations of these NumPy functions reject valid arguments.
_sum: Any = np.add.reduce
_least: Any = np.minimum.reduce


class SumTree(NamedTuple):
    """Sum tree, a pytree of arrays. Made by ``init``, written by ``assign``, recomputed by ``refresh``.

    Attributes:
        leaves: Leaves, float64, padded with zeros so that every sum has 16 children.
        sums: Sums of each level from bottom to top, float64: sums of 16 leaves, sums of 16 of these sums, and so on.
        prefix: Cumulative sums of the top level, float64, beginning with 0. The leaves are the top level if there are
            no sums.
        stale: Whether a leaf of each group of 16 was assigned since the last refresh, bool.
    """

    leaves: npt.NDArray[np.float64]
    sums: tuple[npt.NDArray[np.float64], ...]
    prefix: npt.NDArray[np.float64]
    stale: npt.NDArray[np.bool_]


def _sizes(number: int) -> list[int]:
    """Number of entries of each level, leaves first, padded so that every entry above has 16 children."""
    levels, top = 0, number
    while top > _TOP:
        levels, top = levels + 1, -(-top // _BRANCHES)
    if not levels:
        return [-(-number // _BRANCHES) * _BRANCHES]
    return [top << _SHIFT * level for level in range(levels, -1, -1)]


def nbytes(number: int) -> int:
    """Number of bytes of a tree over ``number`` leaves.

    >>> nbytes(1_000_000)
    8626664
    """
    sizes = _sizes(number)
    return 8 * (sum(sizes) + sizes[-1] + 1) + sizes[0] // _BRANCHES


def init(number: int) -> SumTree:
    """Make a tree over ``number`` >= 1 leaves, all 0.

    >>> tree = init(100)
    >>> tree.leaves.shape, tree.sums, total(tree)
    ((112,), (), 0.0)
    """
    sizes = _sizes(number)
    leaves, *sums = (np.zeros(size, np.float64) for size in sizes)
    return SumTree(leaves, tuple(sums), np.zeros(sizes[-1] + 1), np.zeros(sizes[0] // _BRANCHES, np.bool_))


def assign(tree: SumTree, index: int | npt.NDArray[np.int64], values: float | npt.NDArray[np.float64]) -> None:
    """Set leaves, in place, without checks.

    Args:
        tree: Tree, changed in place.
        index: Indices of the leaves. If an index is repeated, its last value is used.
        values: Finite numbers >= 0; the sum over all leaves must be finite too.

    >>> tree = init(100)
    >>> assign(tree, np.array([3, 5, 3]), np.array([1.0, 2.0, 4.0]))
    >>> refresh(tree)
    >>> tree.leaves[:6].tolist(), total(tree)
    ([0.0, 0.0, 0.0, 4.0, 0.0, 2.0], 6.0)
    """
    tree.leaves[index] = values
    tree.stale[index >> _SHIFT] = True


def refresh(tree: SumTree) -> None:
    """Recompute all stale sums, in place.

    >>> tree = init(100)
    >>> assign(tree, 7, 0.5)
    >>> total(tree), refresh(tree), total(tree)
    (0.0, None, 0.5)
    """
    nodes = tree.stale.nonzero()[0]
    if not len(nodes):
        return
    tree.stale[nodes] = False
    below = tree.leaves
    for sums in tree.sums:
        sums[nodes] = _sum(below.reshape(-1, _BRANCHES).take(nodes, axis=0), axis=1)
        nodes, below = nodes >> _SHIFT, sums
    np.add.accumulate(below, out=tree.prefix[1:])


def total(tree: SumTree) -> float:
    """Sum of all leaves, as of the last refresh.

    >>> total(init(100))
    0.0
    """
    return float(tree.prefix[-1])


def find(tree: SumTree, mass: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Find the leaf at which the cumulative sum of the leaves exceeds ``mass``; a leaf of 0 is never found.

    Args:
        tree: Refreshed tree with a total above 0; unchanged.
        mass: Numbers ``[K]`` float64, from 0 to the total.

    Returns:
        Indices of the leaves, ``[K]`` int64, and their values, ``[K]`` float64. If ``mass`` is uniform in [0, total),
        the probability of a leaf is proportional to its value.

    >>> tree = init(100)
    >>> assign(tree, np.array([3, 5]), np.array([4.0, 2.0]))
    >>> refresh(tree)
    >>> index, values = find(tree, np.array([0.0, 3.9, 4.0, 5.9]))
    >>> index.tolist(), values.tolist()
    ([3, 3, 5, 5], [4.0, 4.0, 2.0, 2.0])
    """
    index = _descend(tree, mass)
    values = tree.leaves.take(index)
    if _least(values) == 0:
        # After rounding, the remaining mass can exceed the sum of a node, for about 1e-16 of the total. These entries
        # are assigned to the first leaf that is not 0, which is the leaf of mass 0.
        index = np.where(values == 0, _descend(tree, np.zeros(1)), index)
        values = tree.leaves.take(index)
    return index, values


def is_valid(tree: SumTree) -> bool:
    """Return whether every sum that is not stale equals the sum of its children, exact to the bit.

    >>> is_valid(init(100))
    True
    """
    below, current = tree.leaves, ~tree.stale
    for sums in tree.sums:
        parts = _sum(below.reshape(-1, _BRANCHES), axis=1)
        if not np.array_equal(sums[current], parts[current]):
            return False
        below, current = sums, np.ones(len(sums) // _BRANCHES, np.bool_)  # only the sums of leaves can be stale
    changed = not tree.sums and bool(tree.stale.any())
    return changed or np.array_equal(tree.prefix[1:], np.add.accumulate(below))


def _descend(tree: SumTree, mass: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    node = tree.prefix[1:-1].searchsorted(mass, side="right")
    starts = _row_starts(len(mass))
    before = tree.prefix.take(node)
    for level in (*tree.sums[-2::-1], tree.leaves) if tree.sums else ():
        mass = mass - before
        running = level.reshape(-1, _BRANCHES).take(node, axis=0) @ _UP_TO  # twice as fast as np.add.accumulate
        child = (running > mass[:, None]).argmax(axis=1)
        node = (node << _SHIFT) + child
        if level is not tree.leaves:
            before = running.take(starts + child) * (child > 0)
    return node


@functools.lru_cache(maxsize=16)
def _row_starts(number: int) -> npt.NDArray[np.int64]:
    """Start of each row of a flat ``[number, 16]`` array minus 1, so that start + child is the entry before child."""
    return np.arange(number) * _BRANCHES - 1
