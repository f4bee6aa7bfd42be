"""Update functions with optax's signatures: apply optimizer updates, average parameters, copy parameters.

If the result of optax is defined and finite, the result here is equal. ``docs/updates.md`` lists the other cases
(integer and key leaves, dtypes, a step size of 1 with NaN, errors). Outside ``jit``, a call runs one compiled program
for any number of leaves, and ``donate=True`` reuses the memory of the old tree.
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
    """Add an optimizer's updates to the parameters, in the dtype of the parameters.

    Args:
        params: Tree of arrays.
        updates: Tree of the structure and shapes of ``params``. ``float0`` leaves leave a parameter unchanged; PRNG
            keys in ``params`` are unchanged too.
        donate: Whether the memory of ``params`` may be reused for the result.

    Returns:
        Tree of ``params + updates``, leaf by leaf.

    Raises:
        ValueError: If structures or shapes differ; the message names the leaf.
        TypeError: If a leaf is not an array.

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
    """Average two trees: ``step_size * new + (1 - step_size) * old`` (Polyak averaging).

    Floating-point leaves are averaged (leaves of 16 bits or fewer in float32, then rounded). Integers, booleans and
    PRNG keys are copied from the new tree if ``step_size > 0``. Step size 1 returns the new tree and step size 0 the
    old tree, exact to the bit for all values, including NaN.

    Args:
        new_tensors: Online parameters.
        old_tensors: Target parameters, with the structure, shapes and dtypes of ``new_tensors``.
        step_size: Weight of the new tree, in [0, 1]; checked if it is a Python or NumPy number.
        cast: None, or ``"target"`` to allow different dtypes and keep those of ``old_tensors``.
        donate: Whether the memory of ``old_tensors`` may be reused for the result.

    Returns:
        Averaged tree, in the dtypes of ``old_tensors``.

    Raises:
        ValueError: If the step size is outside [0, 1], or the trees do not match; the message names the leaf.
        TypeError: If the step size is not a number, or a leaf is not an array.

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
    """Copy the new tree if ``steps`` is a multiple of ``update_period``, else keep the old tree.

    Like optax, this function copies at ``steps == 0``; a :class:`polyak.updates.TargetRule` does not fire there.

    Args:
        new_tensors: Online parameters.
        old_tensors: Target parameters, with the structure, shapes and dtypes of ``new_tensors``.
        steps: Number of learner steps so far, an integer; checked if it is a Python or NumPy number.
        update_period: Number of steps between copies, an integer >= 1; checked if it is a Python or NumPy number.
        cast: None, or ``"target"`` to allow different dtypes and keep those of ``old_tensors``.
        donate: Whether the memory of ``old_tensors`` may be reused for the result.

    Returns:
        Copy of one of the two trees, in the dtypes of ``old_tensors``.

    Raises:
        ValueError: If the period is below 1, ``steps`` is negative, or the trees do not match; the message names the
            leaf.
        TypeError: If the period or ``steps`` is not an integer, or a leaf is not an array.

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
    """Average one leaf with ``step_size`` if ``fired``; used by every rule.

    This function uses ``where`` instead of ``lax.cond``: inside ``scan``, a branch of ``cond`` that returns its inputs
    makes XLA copy every carried buffer, and under ``vmap`` both branches run.
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

    # optax casts the sum to the dtype of the parameters: float32 updates of bfloat16 parameters are usual.
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
    # The value of a jax.Array is not read, because reading it waits for the device.
    return not isinstance(value, jax.Array | jax.core.Tracer)


def _check_scalar(value: Any, name: str) -> None:
    if jnp.shape(value) != ():
        raise ValueError(f"{name}: got an array of shape {jnp.shape(value)}; expected a scalar. Use vmap for several.")


def check_step_size(value: Any, name: str = "step_size") -> None:
    """Raise unless ``value`` is a number in [0, 1]; JAX arrays are not checked, because reading them waits."""
    if not _is_concrete(value):
        return
    if isinstance(value, bool | np.bool_ | str) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected a number in [0, 1].")
    if not 0 <= value <= 1:  # also true for NaN
        hint = (
            f" Did you mean a period of {value}: periodic({int(value)})?"
            if value > 1 and float(value).is_integer()
            else ""
        )
        raise ValueError(f"{name}: got {value}; expected 0 <= {name} <= 1, the weight of the new parameters.{hint}")


def check_integer(value: Any, name: str, lowest: int) -> None:
    """Raise unless ``value`` is an integer >= ``lowest``; of a JAX array only the dtype is checked."""
    if not _is_concrete(value):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name}: got dtype {value.dtype}; expected an integer dtype.")
        return
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected an integer >= {lowest}.")
    if not lowest <= value < 2**31:
        raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}, below 2**31.")


def check_period(value: Any, name: str = "period", lowest: int = 0) -> None:
    """Raise unless ``value`` is an integer >= ``lowest``; for a value in (0, 1), the message suggests a step size."""
    if isinstance(value, float | np.floating) and 0 < value < 1:
        raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}. Did you mean incremental({value})?")
    check_integer(value, name, lowest)


def _dtypes(cast: Any) -> Dtypes:
    if cast not in (None, "target"):
        raise ValueError(f'cast: got {cast!r}; expected None or "target".')
    return "equal" if cast is None else "castable"


def _warn_if_stalling(step_size: Any, old: Tree) -> None:
    # In 16 or 8 bits a small update is rounded away: at 0.005, about 70 % of the weights in bfloat16 never change.
    if not _is_concrete(step_size) or step_size == 0:
        return
    # One pass over the dtypes: for a tree of many small leaves, more would cost as much as the update itself.
    found = _LOW_PRECISION.intersection(getattr(leaf, "dtype", None) for leaf in jax.tree.leaves(old))
    for dtype in sorted(found, key=str):
        if step_size < float(jnp.finfo(dtype).eps):
            warnings.warn(
                f"step_size {step_size} is below {float(jnp.finfo(dtype).eps)}, the resolution of {dtype}: most "
                "weights of this target will never change. Use polyak.updates.target, which keeps them in float32.",
                stacklevel=3,
            )
            return
