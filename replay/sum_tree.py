"""Sums over many numbers that change, and draws in proportion to them: a wide tree in NumPy arrays.

Every sum is that of its 16 children, recomputed when one of them has changed, never by adding a difference: nothing
drifts, however often leaves change. A leaf that is assigned only marks the sum above it as stale; ``refresh`` makes
all stale sums at once, so that leaves may change many times between two draws.

A draw goes down from prefix sums of the topmost level, all draws of a batch together: a handful of NumPy calls a level,
and two levels under the topmost for a million leaves.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_SHIFT = 4
_BRANCHES = 1 << _SHIFT
_UP_TO = np.triu(np.ones((_BRANCHES, _BRANCHES)))  # a row times this is its running sum
_TOP = 1 << 12  # as many prefix sums as cost about what going down one more level does

# NumPy's annotations of these refuse what they take.
_sum: Any = np.add.reduce
_least: Any = np.minimum.reduce


class SumTree(NamedTuple):
    """A pytree of arrays. Made by ``init``, written by ``assign``, brought up to date by ``refresh``.

    Attributes:
        leaves: float64, as many as were asked for, and zeros so that every sum has 16.
        sums: level by level upwards, float64: sums of 16 leaves, of 16 of those, and so on.
        prefix: float64, 0 and then sums over the topmost of these levels (leaves included) up to and with each entry.
        stale: bool, one for 16 leaves, whether one of them was assigned since the last refresh.
    """

    leaves: npt.NDArray[np.float64]
    sums: tuple[npt.NDArray[np.float64], ...]
    prefix: npt.NDArray[np.float64]
    stale: npt.NDArray[np.bool_]


def _sizes(number: int) -> list[int]:
    """Entries of each level, leaves first: so many that every entry above them has all of its 16."""
    levels, top = 0, number
    while top > _TOP:
        levels, top = levels + 1, -(-top // _BRANCHES)
    if not levels:
        return [-(-number // _BRANCHES) * _BRANCHES]
    return [top << _SHIFT * level for level in range(levels, -1, -1)]


def nbytes(number: int) -> int:
    """Bytes of a tree over ``number`` leaves.

    >>> nbytes(1_000_000)
    8626664
    """
    sizes = _sizes(number)
    return 8 * (sum(sizes) + sizes[-1] + 1) + sizes[0] // _BRANCHES


def init(number: int) -> SumTree:
    """Make a tree over ``number`` leaves of 0, one or more.

    >>> tree = init(100)
    >>> tree.leaves.shape, tree.sums, total(tree)
    ((112,), (), 0.0)
    """
    sizes = _sizes(number)
    leaves, *sums = (np.zeros(size, np.float64) for size in sizes)
    return SumTree(leaves, tuple(sums), np.zeros(sizes[-1] + 1), np.zeros(sizes[0] // _BRANCHES, np.bool_))


def assign(tree: SumTree, index: int | npt.NDArray[np.int64], values: float | npt.NDArray[np.float64]) -> None:
    """Set leaves, in place. Nothing is checked.

    Args:
        tree: consumed, as it is written in place.
        index: which leaves; of one that is named twice the last value counts.
        values: finite numbers of 0 or more, whose sum over all leaves is finite too.

    >>> tree = init(100)
    >>> assign(tree, np.array([3, 5, 3]), np.array([1.0, 2.0, 4.0]))
    >>> refresh(tree)
    >>> tree.leaves[:6].tolist(), total(tree)
    ([0.0, 0.0, 0.0, 4.0, 0.0, 2.0], 6.0)
    """
    tree.leaves[index] = values
    tree.stale[index >> _SHIFT] = True


def refresh(tree: SumTree) -> None:
    """Bring the sums up to date, in place.

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
    """Find the leaves over which the running sum of all leaves passes ``mass``; never a leaf of 0.

    Args:
        tree: refreshed, with a total above 0; not changed.
        mass: ``[K]`` float64, from 0 to the total.

    Returns:
        ``[K]`` int64 which leaves, and ``[K]`` float64 their values. For ``mass`` uniform in [0, total) each leaf is
        found in proportion to its value.

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
        # What rounding left of a mass may be more than the node below has. Some 1e-16 of the total is lost so; it goes
        # to the first leaf that is not 0, which is where the way of a mass of 0 ends.
        index = np.where(values == 0, _descend(tree, np.zeros(1)), index)
        values = tree.leaves.take(index)
    return index, values


def is_valid(tree: SumTree) -> bool:
    """Whether every sum that is not stale is that of its parts, to the bit.

    >>> is_valid(init(100))
    True
    """
    below, current = tree.leaves, ~tree.stale
    for sums in tree.sums:
        parts = _sum(below.reshape(-1, _BRANCHES), axis=1)
        if not np.array_equal(sums[current], parts[current]):
            return False
        below, current = sums, np.ones(len(sums) // _BRANCHES, np.bool_)  # sums of sums are not put off
    changed = not tree.sums and bool(tree.stale.any())
    return changed or np.array_equal(tree.prefix[1:], np.add.accumulate(below))


def _descend(tree: SumTree, mass: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    node = tree.prefix[1:-1].searchsorted(mass, side="right")
    starts = _row_starts(len(mass))
    before = tree.prefix.take(node)
    for level in (*tree.sums[-2::-1], tree.leaves) if tree.sums else ():
        mass = mass - before
        running = level.reshape(-1, _BRANCHES).take(node, axis=0) @ _UP_TO  # in half the time of np.add.accumulate
        child = (running > mass[:, None]).argmax(axis=1)
        node = (node << _SHIFT) + child
        if level is not tree.leaves:
            before = running.take(starts + child) * (child > 0)
    return node


@functools.lru_cache(maxsize=16)
def _row_starts(number: int) -> npt.NDArray[np.int64]:
    """Where the rows of ``[number, 16]`` start, less one: the entry before a child is its start and the child."""
    return np.arange(number) * _BRANCHES - 1
