"""Checks and sizes of the host replay: what is refused before anything is written."""

import math
import numbers
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil
from jax import tree_util

from . import sum_tree
from .types import Array, Step, Tree

if TYPE_CHECKING:
    from ._rows import HostReplay


_EXAMPLES = {"discount": 0.99, "importance_exponent": 0.4, "exponent": 0.6}
_MOST = float(np.finfo(np.float64).max)
GIB = 2**30
# NumPy's annotations of these refuse what they take.
_least: Any = np.minimum.reduce
_largest: Any = np.maximum.reduce
_SINGLE, _ACTION, _FLAG = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.bool_)


def check_count(name: str, value: Any) -> int:
    """An integer of 1 or more, as a Python int: NumPy's would overflow in products."""
    if type(value) is int and value >= 1:  # the abstract class below takes a microsecond to ask
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name}: got {value!r}; expected an integer >= 1. Round it and raise it to 1 or more.")
    return int(value)


def check_unit(name: str, value: Any) -> float:
    """A number in [0, 1], as a Python float."""
    if type(value) is float and 0 <= value <= 1:
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{name}: got {value!r}; expected a number in [0, 1], for example {_EXAMPLES[name]}.")
    return float(value)


def check_priorities(
    rows: Array, priorities: Array, number: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Rows and priorities as flat arrays; the sum over ``number`` of them must be finite."""
    at, values = np.asarray(rows), np.asarray(priorities, np.float64)
    if at.dtype.kind not in "iu":
        raise TypeError(f"rows: got dtype {at.dtype}; expected int64. Pass Sample.rows as it was drawn.")
    if at.shape != values.shape:
        raise ValueError(
            f"priorities: got shape {values.shape}; expected {at.shape}, one for each of rows. Reshape them alike."
        )
    if at.ndim != 1:
        at, values = at.reshape(-1), values.reshape(-1)
    limit = _MOST / number
    # NaN passes through both and is in no range.
    if len(at) and not (_least(values) >= 0 and _largest(values) <= limit):
        index = int(np.argmin((values >= 0) & (values <= limit)))
        where = ", ".join(str(i) for i in np.unravel_index(index, np.shape(priorities)))
        raise ValueError(
            f"priorities[{where}]: got {values[index]}; expected a finite number from 0 to {limit:.2g}. Pass absolute "
            "TD errors, and look for the cause where they are not finite."
        )
    return at, values


def rows_per_lane(num_envs: int, capacity: int, stack: int) -> int:
    """Rows of one lane: its share of the capacity, the history of the oldest of them, and one for the open row."""
    return -(-check_count("capacity", capacity) // check_count("num_envs", num_envs)) + check_count("stack", stack)


def check_period(value: Any) -> int:
    """An integer of 0 or more."""
    return 0 if type(value) is int and value == 0 else check_count("sequence_period", value)


def check_frame(observation: Array, stack: int) -> None:
    """Refuses to stack what is no image of one channel."""
    shape = observation.shape
    if stack > 1 and not (len(shape) == 2 or (len(shape) == 3 and shape[-1] == 1)):
        raise ValueError(
            f"observation: got shape {shape}; expected one frame, (H, W) or (H, W, 1), to make a stack of {stack} of. "
            "Leave stack at 1, or turn pictures grey."
        )


def lane_nbytes(num_envs: int) -> int:
    """Bytes of the counters of all lanes."""
    return 3 * 8 * num_envs  # head, written, num_valid


def priority_nbytes(rows: int) -> int:
    """Bytes of the priorities of all rows, of which writing each is, and of the largest priority."""
    return sum_tree.nbytes(rows) + 8 * rows + 8


def observation_nbytes(observation: Array) -> int:
    """Bytes of one observation."""
    return int(math.prod(observation.shape) * np.dtype(observation.dtype).itemsize)


def check_storage(storage: Any, needed: int, capacity: int, reopen: bool) -> pathlib.Path:
    """A path in a folder that exists, on a disk with that many bytes to spare; or of a file with that many."""
    if not isinstance(storage, (str, os.PathLike)):
        raise TypeError(f"storage: got {storage!r}; expected the path of a file. Pass a pathlib.Path.")
    path = pathlib.Path(storage)
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"storage: got {str(path)!r}; expected a file in a folder that exists. Make the folder first.")
    if reopen:
        found = path.stat().st_size if path.is_file() else None
        if found != needed:
            what = "no file" if found is None else f"a file of {found} bytes"
            raise ValueError(
                f"storage: got {str(path)!r}, {what}; expected one of {needed} bytes, as a replay of this capacity "
                "left it. Begin a new replay, without reopen."
            )
        return path
    free = psutil.disk_usage(str(path.parent)).free
    if needed > free:
        raise ValueError(
            f"storage: got {str(path)!r} for a capacity of {capacity}, whose observations need {needed / GIB:.2f} GiB; "
            f"expected at most the {free / GIB:.2f} GiB that are free on that disk. Choose another, or a capacity of "
            f"{free / needed:.0%} of it."
        )
    return path


def row_nbytes(observation: Array, extras: Tree, action_mask: Array) -> int:
    """Bytes of one row, after a check of the specs."""
    if not (hasattr(observation, "shape") and hasattr(observation, "dtype")):
        raise TypeError(f"observation: got {observation!r}; expected one array or jax.ShapeDtypeStruct, not a tree.")
    total = 4 + 4 + 4 + 1  # action, reward, continuation, boundary
    specs = {"observation": observation, "extras": extras, "action_mask": action_mask}
    for path, spec in tree_util.tree_flatten_with_path(specs)[0]:
        try:
            dtype = np.dtype(spec.dtype)
            total += int(np.prod(spec.shape, dtype=np.int64)) * dtype.itemsize
        except (AttributeError, TypeError) as error:
            raise TypeError(
                f"{_name(path)}: got {spec!r}; expected an array or jax.ShapeDtypeStruct of a NumPy dtype, without the "
                "environments' axis (random keys as jax.random.key_data)."
            ) from error
    return total


def _name(path: tuple[Any, ...]) -> str:
    first, *rest = path
    return str(first.key) + tree_util.keystr(tuple(rest))


def check_step(state: "HostReplay", step: Step) -> list[tuple[npt.NDArray[Any], Array]]:
    """Pairs of what goes into the rows of ``obs_tm1`` beside its own fields, as stored and as given.

    They are the extras and the action mask; it comes after a check of all of the step's shapes and dtypes.
    """
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
            f"extras_tm1: got the structure {structure}; expected {expected}, as the replay was made with. Pass the "
            "agent's own spec of its extras to init."
        )
    for index, (storage, value) in enumerate(zip(stored, leaves, strict=True)):
        if not _fits(value, storage, num_envs):
            path = tree_util.tree_flatten_with_path(state.extras)[0][index][0]
            check_array("extras_tm1" + tree_util.keystr(path), value, storage, num_envs)
    return list(zip(stored, leaves, strict=True)) + _check_masks(state, step, num_envs)


def _check_masks(state: "HostReplay", step: Step, num_envs: int) -> list[tuple[npt.NDArray[Any], Array]]:
    masks = {"action_mask_tm1": step.action_mask_tm1, "action_mask_t": step.action_mask_t}
    for name, mask in masks.items():
        if not isinstance(state.action_mask, tuple):
            check_array(name, mask, state.action_mask, num_envs)
        elif not isinstance(mask, tuple):
            raise ValueError(f"{name}: got a mask; the replay was made without. Pass the spec of masks to init.")
    return [] if isinstance(state.action_mask, tuple) else [(state.action_mask, step.action_mask_tm1)]


def _is_as_stored(state: "HostReplay", step: Step) -> bool:
    """Whether every field has just the shape and dtype that is stored: the usual case, told in a microsecond."""
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
    except AttributeError:  # a field that is no array; the full check names it
        return False


def _fits(value: Array, storage: npt.NDArray[Any], num_envs: int) -> bool:
    return getattr(value, "shape", None) == (num_envs, *storage.shape[1:]) and bool(value.dtype == storage.dtype)


def check_array(name: str, value: Array, storage: npt.NDArray[Any], num_envs: int) -> None:
    """Refuses what NumPy would broadcast or change in kind when it is assigned to the rows of ``storage``."""
    if _fits(value, storage, num_envs):
        return
    shape = (num_envs, *storage.shape[1:])
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise TypeError(f"{name}: got {value!r}; expected an array {shape} of {storage.dtype}. Wrap it in np.asarray.")
    if value.shape != shape:
        raise ValueError(
            f"{name}: got shape {value.shape}; expected {shape}, one entry per environment. Add the missing axis with "
            "x[None], or make the replay with this shape."
        )
    if not np.can_cast(value.dtype, storage.dtype, "same_kind"):
        raise TypeError(
            f"{name}: got dtype {value.dtype}; expected {storage.dtype} or one that casts to it within its kind. "
            "Convert it, or make the replay with this dtype."
        )
