"""Checks of arguments, steps and sizes of the host replay, before any write."""

import math
import numbers
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil
from jax import tree_util

from .types import Array, Step, Tree

if TYPE_CHECKING:
    from ._rows import ReplayState


_EXAMPLES = {"discount": 0.99, "importance_exponent": 0.4, "priority_exponent": 0.6}
_MOST = float(np.finfo(np.float64).max)
GIB = 2**30
# The type annotations of these NumPy functions reject valid arguments.
_least: Any = np.minimum.reduce
_largest: Any = np.maximum.reduce
_SINGLE, _ACTION, _FLAG = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.bool_)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer >= ``least`` as a Python int, because products of NumPy integers can overflow."""
    if type(value) is int and value >= least:  # the isinstance check below takes a microsecond
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(
            f"{name}: got {value!r}; expected an integer >= {least}. Round it and raise it to {least} or more."
        )
    return int(value)


def check_unit(name: str, value: Any) -> float:
    """Return a number in [0, 1] as a Python float."""
    if type(value) is float and 0 <= value <= 1:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name}: got {value!r}; expected a number in [0, 1], for example {_EXAMPLES[name]}.")
    return float(value)


def check_priorities(
    rows: Array, priorities: Array, number: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return rows and priorities as flat arrays; a sum of ``number`` priorities must be finite."""
    at, values = np.asarray(rows), np.asarray(priorities, np.float64)
    if at.dtype.kind not in "iu":
        raise TypeError(f"rows: got dtype {at.dtype}; expected int64. Pass Sample.rows of a sample unchanged.")
    if at.shape != values.shape:
        raise ValueError(
            f"priorities: got shape {values.shape}; expected {at.shape}, the shape of rows. Reshape one of them."
        )
    if at.ndim != 1:
        at, values = at.reshape(-1), values.reshape(-1)
    limit = _MOST / number
    # If a priority is NaN, both reductions return NaN and the comparisons are False.
    if len(at) and not (_least(values) >= 0 and _largest(values) <= limit):
        index = int(np.argmin((values >= 0) & (values <= limit)))
        where = ", ".join(str(i) for i in np.unravel_index(index, np.shape(priorities)))
        raise ValueError(
            f"priorities[{where}]: got {values[index]}; expected a finite number from 0 to {limit:.2g}. Pass absolute "
            "TD errors. If they are not finite, find the cause in the loss or in the rewards."
        )
    return at, values


def check_fits(name: str, steps: int, kept: int) -> int:
    """Raise ValueError if a window has more steps than a lane keeps; return the number of steps."""
    if steps > kept:
        raise ValueError(
            f"{name}: got {steps}; expected at most {kept}, the steps kept per environment. Use fewer steps, or make "
            "the replay with a larger capacity."
        )
    return steps


def check_steps(n_steps: Any, most: int, in_sequence: bool) -> int:
    """Check that a window of ``n_steps`` fits into a lane, or into a sequence; return the number of steps."""
    n_steps = check_count("n_steps", n_steps)
    if in_sequence and n_steps > most:
        raise ValueError(
            f"n_steps: got {n_steps}; expected at most {most}, the steps of a sequence. Use fewer steps, or make "
            "the replay with a larger sequence_length."
        )
    return check_fits("n_steps", n_steps, most)


def check_key(key: Any) -> None:
    """Raise an error unless a key has 2 to 4 words of uint32."""
    if getattr(key, "dtype", None) != np.uint32:
        got = f"dtype {key.dtype}" if hasattr(key, "dtype") else repr(key)
        raise TypeError(
            f"key: got {got}; expected an array of uint32. Pass the words of jax.random.key_data(key), followed by "
            "the learner step."
        )
    if key.ndim != 1 or not 2 <= len(key) <= 4:
        raise ValueError(
            f"key: got shape {key.shape}; expected (2,), (3,) or (4,). Pass the words of one key, followed by the "
            "learner step."
        )


def check_frame(observation: Array, stack: int) -> None:
    """Raise ValueError if observations are to be stacked but are not images of one channel."""
    shape = observation.shape
    if stack > 1 and not (len(shape) == 2 or (len(shape) == 3 and shape[-1] == 1)):
        raise ValueError(
            f"observation: got shape {shape}; expected one frame, (H, W) or (H, W, 1), for a stack of {stack}. "
            "Use stack=1, or convert images to greyscale."
        )


def check_storage(path: pathlib.Path, needed: int, capacity: int, reopen: bool) -> None:
    """Raise ValueError if the folder of a file is missing, the disk is too full, or the file to reopen does not fit."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"storage: got {str(path)!r}; expected a file in a folder that exists. Make the folder first.")
    if reopen:
        found = path.stat().st_size if path.is_file() else None
        if found != needed:
            what = "no file" if found is None else f"a file of {found} bytes"
            raise ValueError(
                f"storage: got {str(path)!r}, {what}; expected a file of {needed} bytes, written by a replay of this "
                "capacity. Start a new replay, without reopen."
            )
        return
    free = psutil.disk_usage(str(path.parent)).free
    if needed > free:
        raise ValueError(
            f"storage: got {str(path)!r} for a capacity of {capacity}, whose observations need {needed / GIB:.2f} GiB; "
            f"expected at most {free / GIB:.2f} GiB, the free space of the disk. Choose another disk, or at most "
            f"{free / needed:.0%} of the capacity."
        )


def check_row(observation: Array, extras: Tree) -> None:
    """Raise TypeError if an observation or extras cannot be stored in NumPy arrays."""
    if not (hasattr(observation, "shape") and hasattr(observation, "dtype")):
        raise TypeError(f"observation: got {observation!r}; expected one array or jax.ShapeDtypeStruct, not a tree.")
    for path, spec in tree_util.tree_flatten_with_path({"observation": observation, "extras": extras})[0]:
        try:
            spec_nbytes(spec)
        except (AttributeError, TypeError) as error:
            raise TypeError(
                f"{_name(path)}: got {spec!r}; expected an array or jax.ShapeDtypeStruct with a NumPy dtype, without "
                "the environments' axis. Convert random keys with jax.random.key_data."
            ) from error


def spec_nbytes(tree: Tree) -> int:
    """Number of bytes of arrays with the shapes and dtypes of ``tree``."""
    return sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in tree_util.tree_leaves(tree))


def _name(path: tuple[Any, ...]) -> str:
    first, *rest = path
    return str(first.key) + tree_util.keystr(tuple(rest))


def check_step(state: "ReplayState", step: Step) -> list[tuple[npt.NDArray[Any], Array]]:
    """Check all shapes and dtypes of a step; return pairs (stored array, value) of its extras and action mask."""
    num_envs = len(state.head)
    if type(step.extras_tm1) is tuple and _is_as_stored(state, step):
        return []
    check_array("obs_tm1", step.obs_tm1, state.observation, num_envs)
    check_array("a_tm1", step.a_tm1, state.action, num_envs)
    check_array("r_t", step.r_t, state.reward, num_envs)
    check_array("discount_t", step.discount_t, state.continuation, num_envs)
    check_array("last", step.last, state.boundary, num_envs)
    check_array("obs_t", step.obs_t, state.observation, num_envs)
    stored, expected = tree_util.tree_flatten(state.extras)
    structure: Any  # jax annotates it without its operators
    leaves, structure = tree_util.tree_flatten(step.extras_tm1)
    if structure != expected:
        raise ValueError(
            f"extras_tm1: got the structure {structure}; expected {expected}, that of the replay. Make the "
            "replay with the spec of the agent's extras."
        )
    for index, (storage, value) in enumerate(zip(stored, leaves, strict=True)):
        if not _fits(value, storage, num_envs):
            path = tree_util.tree_flatten_with_path(state.extras)[0][index][0]
            check_array("extras_tm1" + tree_util.keystr(path), value, storage, num_envs)
    return list(zip(stored, leaves, strict=True)) + _check_masks(state, step, num_envs)


def _check_masks(state: "ReplayState", step: Step, num_envs: int) -> list[tuple[npt.NDArray[Any], Array]]:
    masks = {"action_mask_tm1": step.action_mask_tm1, "action_mask_t": step.action_mask_t}
    for name, mask in masks.items():
        if not isinstance(state.action_mask, tuple):
            check_array(name, mask, state.action_mask, num_envs)
        elif not isinstance(mask, tuple):
            raise ValueError(f"{name}: got a mask; expected (), as the replay has none. Use a spec with action_mask.")
    return [] if isinstance(state.action_mask, tuple) else [(state.action_mask, step.action_mask_tm1)]


def _is_as_stored(state: "ReplayState", step: Step) -> bool:
    """Return whether every field has exactly the stored shape and dtype; this check takes a microsecond."""
    obs_tm1, a_tm1, r_t, discount_t, last, obs_t, extras_tm1, mask_tm1, mask_t = step
    observation, lanes = state.observation, state.head.shape
    shape = lanes + observation.shape[1:]
    try:
        return bool(
            extras_tm1 == () == state.extras
            and type(state.action_mask) is type(mask_tm1) is type(mask_t) is tuple
            and obs_tm1.dtype is obs_t.dtype is observation.dtype
            and r_t.dtype is discount_t.dtype is _SINGLE
            and a_tm1.dtype is _ACTION
            and last.dtype is _FLAG
            and obs_tm1.shape == obs_t.shape == shape
            and a_tm1.shape == r_t.shape == discount_t.shape == last.shape == lanes
        )
    except AttributeError:  # a field is not an array; the full check names it
        return False


def _fits(value: Array, storage: npt.NDArray[Any], num_envs: int) -> bool:
    return getattr(value, "shape", None) == (num_envs, *storage.shape[1:]) and bool(value.dtype == storage.dtype)


def check_array(name: str, value: Array, storage: npt.NDArray[Any], num_envs: int) -> None:
    """Raise if assigning ``value`` to rows of ``storage`` would broadcast it or change the kind of its dtype."""
    if _fits(value, storage, num_envs):
        return
    shape = (num_envs, *storage.shape[1:])
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise TypeError(f"{name}: got {value!r}; expected an array {shape} of {storage.dtype}. Wrap it in np.asarray.")
    if value.shape != shape:
        raise ValueError(
            f"{name}: got shape {value.shape}; expected {shape}, one entry per environment. Add a missing axis with "
            "x[None], or make the replay for this shape."
        )
    if not np.can_cast(value.dtype, storage.dtype, "same_kind"):
        raise TypeError(
            f"{name}: got dtype {value.dtype}; expected {storage.dtype} or one that NumPy casts to it as 'same_kind'. "
            "Convert it, or make the replay for this dtype."
        )
