"""Trees of parameters: the leaves that are averaged, and errors where two trees do not line up."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any
Dtypes = Literal["equal", "castable", "any"]


def is_averaged(leaf: Any) -> bool:
    """Whether a leaf is averaged (floating point, complex) or copied (integers, booleans, PRNG keys)."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact))


def as_dtype(leaf: Any, dtype: Any) -> Any:
    """The leaf in another dtype; PRNG keys, which have but one, stay as they are."""
    return leaf if leaf.dtype == dtype else leaf.astype(dtype)


def precision_of(dtype: Any) -> Any:
    """The dtype to average a dtype in: float32 for floats of fewer bits, else its own.

    ``jnp.promote_types`` knows no 8-bit floats, and nothing at all under strict promotion.

    >>> precision_of(jnp.bfloat16), precision_of(jnp.complex64)
    (dtype('float32'), dtype('complex64'))
    """
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def as_sharded(leaf: Any, other: Any) -> Any:
    """The leaf on the explicit mesh axes of another; elsewhere XLA chooses, and the leaf stays as it is."""
    own, wanted = jax.typeof(leaf).sharding, jax.typeof(other).sharding
    return leaf if own == wanted or not wanted.mesh.explicit_axes else jax.sharding.reshard(leaf, wanted)


def path_text(path: Any) -> str:
    """Path of a leaf as text: ``mlp/~/linear_0/w``; the root of a tree is ``(root)``."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(root)"


def leaf_paths(tree: Tree) -> list[str]:
    """The paths of all leaves of ``tree``, in the order of its leaves."""
    return [path_text(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _is_none(leaf: Any) -> bool:
    return leaf is None


def map_aligned(
    function: Callable[..., Any], first: Tree, second: Tree, names: tuple[str, str], dtypes: Dtypes = "equal"
) -> Tree:
    """Maps ``function(path, x, y)`` over two trees of one structure and one shape a leaf.

    ``None`` in the first tree stays ``None``, whatever stands in the second (as in optax).

    Args:
        function: called with the path, the leaf of ``first`` and the leaf of ``second``.
        first: a tree of arrays.
        second: a tree of arrays.
        names: names of the two trees in messages.
        dtypes: whether two leaves must have one dtype, one kind of dtype (both averaged or both copied), or any.

    Raises:
        ValueError: the structures, shapes or dtypes do not agree; the message names the leaf.
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
        # Under jax.disable_jit a Python number is none of JAX's arrays.
        x, y = (leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in (x, y))
        results.append(function(path_text(path), x, y))
    return jax.tree_util.tree_unflatten(structure, results)


def check_leaf(path: str, x: Any, y: Any, names: tuple[str, str], dtypes: Dtypes) -> None:
    """Raises ValueError unless two leaves have one shape, and dtypes that agree as far as ``dtypes`` asks."""
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(
            f"{path}: {names[0]} has shape {jnp.shape(x)} and {names[1]} has shape {jnp.shape(y)}; expected one shape "
            "(leaves are never broadcast). Build both trees from the same network."
        )
    x_dtype, y_dtype = jnp.result_type(x), jnp.result_type(y)
    if dtypes != "any" and is_averaged(x) != is_averaged(y):
        raise ValueError(
            f"{path}: {names[0]} is {x_dtype} and {names[1]} is {y_dtype}; one is averaged and the other is copied. "
            "Give both one kind of dtype."
        )
    if dtypes == "equal" and x_dtype != y_dtype:
        raise ValueError(
            f"{path}: {names[0]} is {x_dtype} and {names[1]} is {y_dtype}; expected one dtype. Convert one of them"
            + (', or pass cast="target" to keep the dtype of old_tensors.' if names[1] == "old_tensors" else ".")
        )


def _structure_message(first: Tree, second: Tree, names: tuple[str, str]) -> str:
    first_paths, second_paths = leaf_paths(first), leaf_paths(second)
    only_first = [path for path in first_paths if path not in set(second_paths)]
    only_second = [path for path in second_paths if path not in set(first_paths)]
    if not only_first and not only_second:
        kinds = f"{jax.tree_util.tree_structure(first)} and {jax.tree_util.tree_structure(second)}"
        return f"{names[0]} and {names[1]} hold the same paths in containers of different kinds: {kinds}. Use one kind."
    return (
        f"{names[0]} and {names[1]} differ in structure; only in {names[0]}: {some(only_first)}; "
        f"only in {names[1]}: {some(only_second)}. Build both trees from the same network."
    )


def some(paths: list[str], limit: int = 8) -> str:
    """The first ``limit`` of the paths, and how many more there are."""
    if not paths:
        return "nothing"
    rest = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(paths[:limit]) + rest


class Program(NamedTuple):
    """One function compiled twice, as it is and with one argument donated; inside a trace both are inlined."""

    plain: Callable[..., Any]
    donating: Callable[..., Any]


def compiled(function: Callable[..., Any], donate: int, static: tuple[str, ...] = ()) -> Program:
    """Compiles ``function``; ``donate`` is the position of the argument that the donating version may reuse."""
    return Program(
        jax.jit(function, static_argnames=static, inline=True),
        jax.jit(function, static_argnames=static, inline=True, donate_argnums=(donate,)),
    )


def run(program: Program, donate: bool, *arguments: Any, **static: Any) -> Any:
    """Calls a program; where the call fails, raises an error that names the leaf.

    The check of the leaves comes after a failure, so that a call that succeeds pays nothing for it.
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
                    f"{path_text(path)}: the array was donated at an earlier call and is gone. "
                    "Use the tree which that call returned, or pass donate=False."
                ) from error
        elif isinstance(leaf, jax.ShapeDtypeStruct) or not isinstance(
            leaf, bool | int | float | complex | np.ndarray | np.generic
        ):
            raise TypeError(
                f"{path_text(path)}: got {type(leaf).__name__}; expected an array or a number. "
                "Keep functions, strings and shapes out of the tree (equinox.partition and the like do it)."
            ) from error
    if "donate" in str(error).lower() and "buffer" in str(error).lower():
        raise ValueError(
            "The donated tree shares an array with another argument, as after `target = online`. "
            "Make the target with polyak.updates.target.init, which copies, or pass donate=False."
        ) from error
