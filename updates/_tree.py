"""Operations on trees of parameters: averaged and copied leaves, paths, and errors if two trees do not match."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Dtypes = Literal["equal", "castable", "any"]


def is_averaged(leaf: Any) -> bool:
    """Return whether a leaf is averaged (floating point, complex) or copied (integers, booleans, PRNG keys)."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def as_dtype(leaf: Any, dtype: Any) -> Any:
    """Cast a leaf to a dtype; return it unchanged if it has that dtype already, as PRNG keys do."""
    return leaf if leaf.dtype == dtype else leaf.astype(dtype)


def precision_of(dtype: Any) -> Any:
    """Dtype in which leaves of a dtype are averaged: float32 for floats of fewer bits, else the dtype itself.

    ``jnp.promote_types`` is not used, because it raises for 8-bit floats and under strict promotion.

    >>> precision_of(jnp.bfloat16), precision_of(jnp.complex64)
    (dtype('float32'), dtype('complex64'))
    """
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def as_sharded(leaf: Any, other: Any) -> Any:
    """Reshard a leaf to the explicit mesh axes of another; return it unchanged if the other has no explicit axes."""
    own, wanted = jax.typeof(leaf).sharding, jax.typeof(other).sharding
    return leaf if own == wanted or not wanted.mesh.explicit_axes else jax.sharding.reshard(leaf, wanted)


def path_text(path: Any) -> str:
    """Path of a leaf as text, for example ``mlp/~/linear_0/w``; ``(root)`` for the root of a tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(root)"


def leaf_paths(tree: Tree) -> list[str]:
    """Paths of all leaves of ``tree``, in the order of its leaves."""
    return [path_text(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _is_none(leaf: Any) -> bool:
    return leaf is None


def map_aligned(
    function: Callable[..., Any], first: Tree, second: Tree, names: tuple[str, str], dtypes: Dtypes = "equal"
) -> Tree:
    """Map ``function(path, x, y)`` over two trees of equal structure and leaf shapes.

    ``None`` in the first tree stays ``None``, for any value in the second tree (as in optax).

    Args:
        function: Function of the path, the leaf of ``first`` and the leaf of ``second``.
        first: Tree of arrays.
        second: Tree of arrays.
        names: Names of the two trees in error messages.
        dtypes: Requirement on the dtypes of two leaves: ``"equal"``, ``"castable"`` (both averaged or both copied) or
            ``"any"``.

    Raises:
        ValueError: If the structures, shapes or dtypes do not match; the message names the leaf.
    """
    structure: Any  # jax annotates it without its methods
    entries, structure = jax.tree_util.tree_flatten_with_path(first, is_leaf=_is_none)
    try:
        others = structure.flatten_up_to(second)
    except (TypeError, ValueError):
        raise ValueError(_structure_message(first, second, names)) from None
    results: list[Any] = []
    for (path, x), y in zip(entries, others, strict=True):
        if x is None:
            results.append(None)
            continue
        if not jax.tree_util.all_leaves([y]):
            raise ValueError(_structure_message(first, second, names))
        check_leaf(path_text(path), x, y, names, dtypes)
        # Under jax.disable_jit, a Python number is not converted to a jax.Array.
        x, y = (leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in (x, y))
        results.append(function(path_text(path), x, y))
    return jax.tree_util.tree_unflatten(structure, results)


def check_leaf(path: str, x: Any, y: Any, names: tuple[str, str], dtypes: Dtypes) -> None:
    """Raise ValueError unless two leaves have equal shapes, and dtypes that meet the requirement ``dtypes``."""
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(
            f"{path}: {names[0]} has shape {jnp.shape(x)} and {names[1]} has shape {jnp.shape(y)}; expected equal "
            "shapes (leaves are never broadcast). Build both trees from the same network."
        )
    x_dtype, y_dtype = jnp.result_type(x), jnp.result_type(y)
    if dtypes != "any" and is_averaged(x) != is_averaged(y):
        raise ValueError(
            f"{path}: {names[0]} is {x_dtype} and {names[1]} is {y_dtype}; one is averaged and the other is copied. "
            "Give both a floating-point dtype, or neither."
        )
    if dtypes == "equal" and x_dtype != y_dtype:
        raise ValueError(
            f"{path}: {names[0]} is {x_dtype} and {names[1]} is {y_dtype}; expected equal dtypes. Convert one of them"
            + (', or pass cast="target" to keep the dtype of old_tensors.' if names[1] == "old_tensors" else ".")
        )


def _structure_message(first: Tree, second: Tree, names: tuple[str, str]) -> str:
    first_paths, second_paths = leaf_paths(first), leaf_paths(second)
    only_first = [path for path in first_paths if path not in set(second_paths)]
    only_second = [path for path in second_paths if path not in set(first_paths)]
    if not only_first and not only_second:
        kinds = f"{jax.tree_util.tree_structure(first)} and {jax.tree_util.tree_structure(second)}"
        return f"{names[0]} and {names[1]} have the same paths in containers of different types: {kinds}. Use one type."
    return (
        f"{names[0]} and {names[1]} differ in structure; only in {names[0]}: {some(only_first)}; "
        f"only in {names[1]}: {some(only_second)}. Build both trees from the same network."
    )


def some(paths: list[str], limit: int = 8) -> str:
    """First ``limit`` paths as text, followed by the number of further ones."""
    if not paths:
        return "nothing"
    rest = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(paths[:limit]) + rest


class Program(NamedTuple):
    """Function compiled twice: without donation and with one donated argument. Inside a trace both are inlined."""

    plain: Callable[..., Any]
    donating: Callable[..., Any]


def compiled(function: Callable[..., Any], donate: int, static: tuple[str, ...] = ()) -> Program:
    """Compile ``function``; ``donate`` is the position of the argument that the donating version may reuse."""
    return Program(
        jax.jit(function, static_argnames=static, inline=True),
        jax.jit(function, static_argnames=static, inline=True, donate_argnums=(donate,)),
    )


def run(program: Program, donate: bool, *arguments: Any, **static: Any) -> Any:
    """Call a program; if the call fails, raise an error that names the leaf.

    The leaves are checked only after a failure, so a successful call does not pay for the checks.
    """
    try:
        return (program.donating if donate else program.plain)(*arguments, **static)
    except (TypeError, ValueError, RuntimeError) as error:
        for argument in arguments:
            _explain(argument, error)
        raise


def _explain(tree: Tree, error: Exception) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, jax.core.Tracer):
            continue
        if isinstance(leaf, jax.Array):
            if leaf.is_deleted():
                raise ValueError(
                    f"{path_text(path)}: the array was donated to an earlier call and deleted. "
                    "Use the tree that this call returned, or pass donate=False."
                ) from error
        elif isinstance(leaf, jax.ShapeDtypeStruct) or not isinstance(
            leaf, bool | int | float | complex | np.ndarray | np.generic
        ):
            raise TypeError(
                f"{path_text(path)}: got {type(leaf).__name__}; expected an array or a number. "
                "Remove functions, strings and shapes from the tree, for example with equinox.partition."
            ) from error
    if "donate" in str(error).lower() and "buffer" in str(error).lower():
        raise ValueError(
            "The donated tree shares an array with another argument, for example after `target = online`. "
            "Make the target with polyak.updates.target.init, which copies, or pass donate=False."
        ) from error
