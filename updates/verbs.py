"""The three verbs of a target network: apply, average, copy.

Each has optax's signature and optax's result wherever optax is defined and finite; ``docs/updates.md`` lists where
they go further (integer and key leaves, dtypes, a step size of 1 over NaN, errors). Outside ``jit`` a call is one
compiled program, whatever the number of leaves, and ``donate=True`` lets it reuse the memory of the old tree.
"""

import warnings
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._tree import Dtypes, Tree, as_dtype, as_sharded, compiled, is_averaged, map_aligned, precision_of, run

Scalar = Any  # a Python or NumPy number, or a jax.Array of shape ()

_LOW_PRECISION = frozenset(map(np.dtype, (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.float8_e5m2)))


def apply_updates(params: Tree, updates: Tree, *, donate: bool = False) -> Tree:
    """Adds an optimizer's updates to the parameters, in the dtype of the parameters.

    Args:
        params: a tree of arrays.
        updates: a tree of the same structure and shapes; ``float0`` leaves and those of PRNG keys change nothing.
        donate: whether the memory of ``params`` may be reused for the result.

    Returns:
        ``params + updates``, leaf by leaf.

    Raises:
        ValueError: structures or shapes differ; the message names the leaf.
        TypeError: a leaf is no array.

    >>> import jax.numpy as jnp
    >>> apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})
    {'w': Array([1.5, 1.5], dtype=float32)}
    """
    return run(_APPLY, donate, params, updates)


def incremental_update(
    new_tensors: Tree,
    old_tensors: Tree,
    step_size: Scalar,
    *,
    cast: Literal["target"] | None = None,
    donate: bool = False,
) -> Tree:
    """Moves the old tree towards the new one: ``step_size * new + (1 - step_size) * old`` (Polyak averaging).

    Floating-point leaves are averaged (those of 16 bits and fewer in float32, then rounded); integers, booleans and
    PRNG keys are copied from the new tree when ``step_size > 0``. Step size 1 is a copy to the bit, 0 changes nothing,
    whatever either tree holds.

    Args:
        new_tensors: the online parameters.
        old_tensors: the slow copy, of the same structure, shapes and dtypes.
        step_size: the weight of the new tree, in [0, 1]; checked when it is a Python or NumPy number.
        cast: ``"target"`` allows dtypes to differ and keeps those of ``old_tensors``.
        donate: whether the memory of ``old_tensors`` may be reused for the result.

    Returns:
        the moved copy, in the dtypes of ``old_tensors``.

    Raises:
        ValueError: a step size outside [0, 1], or trees that do not line up; the message names the leaf.
        TypeError: a step size that is no number, or a leaf that is no array.

    References:
        Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.
        Lillicrap et al., Continuous control with deep reinforcement learning, 2015 (https://arxiv.org/abs/1509.02971).

    >>> import jax.numpy as jnp
    >>> incremental_update({"w": jnp.array(1.0)}, {"w": jnp.array(0.0)}, 0.25)
    {'w': Array(0.25, dtype=float32)}
    """
    check_step_size(step_size)
    _warn_if_stalling(step_size, old_tensors)
    return run(_INCREMENTAL, donate, new_tensors, old_tensors, step_size, dtypes=_dtypes(cast))


def periodic_update(
    new_tensors: Tree,
    old_tensors: Tree,
    steps: Scalar,
    update_period: Scalar,
    *,
    cast: Literal["target"] | None = None,
    donate: bool = False,
) -> Tree:
    """Copies the new tree when ``steps`` is a multiple of ``update_period``, else keeps the old one.

    As in optax it copies at ``steps == 0`` too; :class:`polyak.updates.TargetRule` never does.

    Args:
        new_tensors: the online parameters.
        old_tensors: the slow copy, of the same structure, shapes and dtypes.
        steps: the number of learner steps so far, an integer; checked when it is a Python or NumPy number.
        update_period: Number of steps between copies, an integer of at least 1; checked in the same way.
        cast: ``"target"`` allows dtypes to differ and keeps those of ``old_tensors``.
        donate: whether the memory of ``old_tensors`` may be reused for the result.

    Returns:
        a copy of one of the two trees, in the dtypes of ``old_tensors``.

    Raises:
        ValueError: a period below 1, negative steps, or trees that do not line up; the message names the leaf.
        TypeError: a period or steps that are no integers, or a leaf that is no array.

    References:
        Mnih et al., Human-level control through deep reinforcement learning, 2015.

    >>> import jax.numpy as jnp
    >>> online, target = {"w": jnp.array(1.0)}, {"w": jnp.array(0.0)}
    >>> [float(periodic_update(online, target, steps, 500)["w"]) for steps in (499, 500, 501)]
    [0.0, 1.0, 0.0]
    """
    check_period(update_period, "update_period", lowest=1)
    check_integer(steps, "steps", lowest=0)
    return run(_PERIODIC, donate, new_tensors, old_tensors, steps, update_period, dtypes=_dtypes(cast))


def move(new: jax.Array, old: jax.Array, step_size: jax.Array, fired: Any = True) -> jax.Array:
    """Moves one leaf by ``step_size`` where ``fired``; the arithmetic under every rule.

    ``where`` instead of ``lax.cond``: inside ``scan`` a pass-through branch of ``cond`` makes XLA copy every carried
    buffer, and under ``vmap`` both branches run in any case.
    """
    new = as_sharded(new, old)
    if not is_averaged(old):
        return jnp.where(fired & (step_size > 0), as_dtype(new, old.dtype), old)
    precision = precision_of(old.dtype)
    weight = step_size.astype(jnp.finfo(precision).dtype)
    mixed = weight * new.astype(precision) + (1 - weight) * old.astype(precision)
    moved = jnp.where(weight == 1, as_dtype(new, old.dtype), as_dtype(mixed, old.dtype))
    return jnp.where(fired & (weight != 0), moved, old)


def _apply(params: Tree, updates: Tree) -> Tree:
    def add(path: str, p: Any, u: Any) -> Any:
        if u.dtype == jax.dtypes.float0 or jnp.issubdtype(p.dtype, jax.dtypes.prng_key):
            return p
        try:
            return optax.apply_updates(p, as_sharded(u, p))
        except (TypeError, ValueError) as error:
            if p.dtype == u.dtype:
                raise
            raise TypeError(
                f"{path}: params is {p.dtype} and updates is {u.dtype}, which JAX does not add under the current "
                "jax_numpy_dtype_promotion. Convert the updates to the dtype of the parameters."
            ) from error

    # The dtypes of updates are optax's business: float32 updates of bfloat16 parameters are usual.
    return map_aligned(add, params, updates, ("params", "updates"), dtypes="any")


def _incremental(new: Tree, old: Tree, step_size: Any, *, dtypes: Dtypes) -> Tree:
    _check_scalar(step_size, "step_size")
    step_size = jnp.asarray(step_size)
    return map_aligned(lambda _, n, o: move(n, o, step_size), new, old, ("new_tensors", "old_tensors"), dtypes)


def _periodic(new: Tree, old: Tree, steps: Any, update_period: Any, *, dtypes: Dtypes) -> Tree:
    _check_scalar(steps, "steps")
    _check_scalar(update_period, "update_period")
    fired = jnp.mod(steps, update_period) == 0
    return map_aligned(
        lambda _, n, o: jnp.where(fired, as_dtype(as_sharded(n, o), o.dtype), o),
        new,
        old,
        ("new_tensors", "old_tensors"),
        dtypes,
    )


_APPLY = compiled(_apply, donate=0)
_INCREMENTAL = compiled(_incremental, donate=1, static=("dtypes",))
_PERIODIC = compiled(_periodic, donate=1, static=("dtypes",))


def _is_concrete(value: Any) -> bool:
    # A jax.Array is never looked at: reading it would wait for the device.
    return not isinstance(value, jax.Array | jax.core.Tracer)


def _check_scalar(value: Any, name: str) -> None:
    if jnp.shape(value) != ():
        raise ValueError(f"{name}: got an array of shape {jnp.shape(value)}; expected a scalar. Use vmap for several.")


def check_step_size(value: Any, name: str = "step_size") -> None:
    """Raises unless ``value`` is a number in [0, 1] (checked where it can be read without waiting)."""
    if not _is_concrete(value):
        return
    if isinstance(value, bool | np.bool_ | str) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected a number in [0, 1].")
    if not 0 <= value <= 1:  # false for NaN as well
        hint = (
            f" Did you mean a period of {value}: periodic({int(value)})?"
            if value > 1 and float(value).is_integer()
            else ""
        )
        raise ValueError(f"{name}: got {value}; expected 0 <= {name} <= 1, the weight of the new parameters.{hint}")


def check_integer(value: Any, name: str, lowest: int) -> None:
    """Raises unless ``value`` is an integer of at least ``lowest`` (checked where it can be read without waiting)."""
    if not _is_concrete(value):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name}: got dtype {value.dtype}; expected an integer dtype.")
        return
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected an integer >= {lowest}.")
    if not lowest <= value < 2**31:
        raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}, below 2**31.")


def check_period(value: Any, name: str = "period", lowest: int = 0) -> None:
    """Raises unless ``value`` is a whole number of steps; a fraction is taken for a mistaken step size."""
    if isinstance(value, float | np.floating) and 0 < value < 1:
        raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}. Did you mean incremental({value})?")
    check_integer(value, name, lowest)


def _dtypes(cast: Any) -> Dtypes:
    if cast not in (None, "target"):
        raise ValueError(f'cast: got {cast!r}; expected None or "target".')
    return "equal" if cast is None else "castable"


def _warn_if_stalling(step_size: Any, old: Tree) -> None:
    # In 16 bits or 8 a small step is rounded away: at 0.005, seven weights in ten of a bfloat16 copy never move.
    if not _is_concrete(step_size) or step_size == 0:
        return
    # One look at all dtypes: in a tree of many small leaves, more than that costs as much as the update itself.
    found = _LOW_PRECISION.intersection(getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(old))
    for dtype in sorted(found, key=str):
        if step_size < float(jnp.finfo(dtype).eps):
            warnings.warn(
                f"step_size {step_size} is below {float(jnp.finfo(dtype).eps)}, the resolution of {dtype}: most "
                "weights of this copy will never move. Use polyak.updates.target, which keeps a float32 accumulator.",
                stacklevel=3,
            )
            return
