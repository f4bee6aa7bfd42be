"""The tree of sums against running sums of all leaves."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import sum_tree

SIZES = [1, 15, 16, 17, 4096, 4097, 70_000]  # one level, two, three


def tree_of(leaves: np.ndarray) -> sum_tree.SumTree:
    tree = sum_tree.init(len(leaves))
    sum_tree.assign(tree, np.arange(len(leaves)), leaves)
    sum_tree.refresh(tree)
    return tree


@pytest.mark.parametrize("size", SIZES)
def test_a_mass_is_found_where_the_running_sum_passes_it(size: int) -> None:
    generator = np.random.default_rng(size)
    leaves = generator.integers(0, 4, size).astype(np.float64)  # whole numbers: every sum is exact
    leaves[generator.integers(size)] = 3
    tree = tree_of(leaves)
    assert sum_tree.total(tree) == leaves.sum()
    mass = np.concatenate([np.arange(min(leaves.sum(), 500.0)), generator.uniform(0, leaves.sum(), 500)])
    index, values = sum_tree.find(tree, mass)
    np.testing.assert_array_equal(index, np.searchsorted(leaves.cumsum(), mass, side="right"))
    np.testing.assert_array_equal(values, leaves[index])
    assert index.dtype == np.int64


@pytest.mark.parametrize("size", SIZES)
def test_what_is_counted_is_what_is_allocated(size: int) -> None:
    tree = sum_tree.init(size)
    assert sum_tree.nbytes(size) == sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(tree))
    assert sum_tree.is_valid(tree)


@pytest.mark.parametrize("size", [40, 5000, 70_000])
def test_a_million_changes_leave_the_sums_of_a_new_tree_to_the_bit(size: int) -> None:
    generator = np.random.default_rng(0)
    tree, leaves = sum_tree.init(size), np.zeros(size)
    for number in range(1000):
        index, values = generator.integers(size, size=1000), generator.exponential(size=1000) ** 5
        for at, value in zip(index[:10].tolist(), values[:10].tolist(), strict=True):
            leaves[at] = value
            sum_tree.assign(tree, at, value)
        leaves[index[10:]] = values[10:]
        sum_tree.assign(tree, index[10:], values[10:])
        if number % 3 == 0:
            sum_tree.refresh(tree)
    assert sum_tree.is_valid(tree)
    sum_tree.refresh(tree)
    assert sum_tree.is_valid(tree)
    jax.tree.map(np.testing.assert_array_equal, tree, tree_of(leaves))


@pytest.mark.parametrize("size", [10, 5000, 70_000])
def test_a_sum_that_is_not_of_its_parts_is_told(size: int) -> None:
    tree = tree_of(np.ones(size))
    for array in (*tree.sums, tree.prefix):
        assert sum_tree.is_valid(tree)
        before, array[2] = array[2], np.nextafter(array[2], np.inf)
        assert not sum_tree.is_valid(tree)
        array[2] = before


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    size=st.sampled_from([1, 30, 5000, 66_000]),
    values=st.lists(st.sampled_from([0.0, 5e-324, 1e-300, 0.1, 1 / 3, 1.0, 1e16, 1e300]), min_size=1, max_size=20),
    seed=st.integers(0, 1000),
)
def test_a_leaf_of_0_is_never_found(size: int, values: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = np.zeros(size)
    leaves[generator.integers(size, size=len(values))] = values
    tree = tree_of(leaves)
    total = sum_tree.total(tree)
    if not total:
        assert not leaves.any()
        return
    # The edges of every leaf and sum, as rounding may hit them, and beyond.
    edges = np.unique(np.concatenate([array[array > 0] for array in (leaves.cumsum(), *tree.sums, tree.prefix)]))
    edges = np.concatenate([np.nextafter(edges, 0), edges, np.nextafter(edges, np.inf)])
    mass = np.concatenate([edges[edges <= total], [0.0, total], total * generator.random(50)])
    index, values_found = sum_tree.find(tree, mass)
    assert (values_found > 0).all()
    np.testing.assert_array_equal(values_found, leaves[index])


def test_what_rounding_leaves_over_goes_to_a_leaf_that_is_not_0() -> None:
    # Added in pairs, 15 numbers are often more than added one by one, and the mass between is nobody's.
    generator = np.random.default_rng(0)
    reached = set()
    for _ in range(100):
        leaves = np.zeros(5008)
        leaves[16 * 7 + 1 : 16 * 8] = generator.random(15)
        tree = tree_of(leaves)
        total = sum_tree.total(tree)
        index, values = sum_tree.find(tree, np.array([total, np.nextafter(total, 0), total * 0.999999, 0.0]))
        np.testing.assert_array_equal(values, leaves[index])
        assert (values > 0).all()
        reached |= set(index[:2].tolist())
        assert index[2:].tolist() == [16 * 8 - 1, 16 * 7 + 1]
    assert reached == {16 * 7 + 1, 16 * 8 - 1}
