"""Checks of arguments, steps and sizes of the host replay, made before anything is written."""

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
    from ._rows import HostReplay


_EXAMPLES = {"discount": 0.99, "importance_exponent": 0.4, "priority_exponent": 0.6}
_MOST = float(np.finfo(np.float64).max)
GIB = 2**30
# NumPy's annotations of these refuse what they take.
_least: Any = np.minimum.reduce
_largest: Any = np.maximum.reduce
_SINGLE, _ACTION, _FLAG = np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.bool_)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """An integer of ``least`` or more, as a Python int: NumPy's would overflow in products."""
    if type(value) is int and value >= least:  # the abstract class below takes a microsecond to ask
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(
            f"{name}: got {value!r}; expected an integer >= {least}. Round it and raise it to {least} or more."
        )
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


def check_fits(name: str, steps: int, kept: int) -> int:
    """Refuse windows of more steps than a lane keeps."""
    if steps > kept:
        raise ValueError(
            f"{name}: got {steps}; expected at most {kept}, the steps kept per environment. Draw over fewer steps, or "
            "make the replay with a larger capacity."
        )
    return steps


def check_steps(n_steps: Any, most: int, in_sequence: bool) -> int:
    """Number of steps of a window, which must fit into a lane, or into a sequence."""
    n_steps = check_count("n_steps", n_steps)
    if in_sequence and n_steps > most:
        raise ValueError(
            f"n_steps: got {n_steps}; expected at most {most}, the steps of a sequence. Sum over fewer steps, or make "
            "the replay with a larger sequence_length."
        )
    return check_fits("n_steps", n_steps, most)


def check_key(key: Any) -> npt.NDArray[np.uint32]:
    """From 2 to 4 words of uint32."""
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
    return np.asarray(key)


def check_frame(observation: Array, stack: int) -> None:
    """Refuse to stack observations that are not images of one channel."""
    shape = observation.shape
    if stack > 1 and not (len(shape) == 2 or (len(shape) == 3 and shape[-1] == 1)):
        raise ValueError(
            f"observation: got shape {shape}; expected one frame, (H, W) or (H, W, 1), to make a stack of {stack} of. "
            "Leave stack at 1, or turn pictures grey."
        )


def check_storage(path: pathlib.Path, needed: int, capacity: int, reopen: bool) -> None:
    """Refuse a file in a missing folder or on a disk that is too full, and to reopen one of another size."""
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
        return
    free = psutil.disk_usage(str(path.parent)).free
    if needed > free:
        raise ValueError(
            f"storage: got {str(path)!r} for a capacity of {capacity}, whose observations need {needed / GIB:.2f} GiB; "
            f"expected at most the {free / GIB:.2f} GiB that are free on that disk. Choose another, or a capacity of "
            f"{free / needed:.0%} of it."
        )


def check_row(observation: Array, extras: Tree) -> None:
    """Refuse what cannot be stored in NumPy arrays."""
    if not (hasattr(observation, "shape") and hasattr(observation, "dtype")):
        raise TypeError(f"observation: got {observation!r}; expected one array or jax.ShapeDtypeStruct, not a tree.")
    for path, spec in tree_util.tree_flatten_with_path({"observation": observation, "extras": extras})[0]:
        try:
            spec_nbytes(spec)
        except (AttributeError, TypeError) as error:
            raise TypeError(
                f"{_name(path)}: got {spec!r}; expected an array or jax.ShapeDtypeStruct of a NumPy dtype, without the "
                "environments' axis (random keys as jax.random.key_data)."
            ) from error


def spec_nbytes(tree: Tree) -> int:
    """Number of bytes of arrays of these shapes and dtypes."""
    return sum(math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in tree_util.tree_leaves(tree))


def _name(path: tuple[Any, ...]) -> str:
    first, *rest = path
    return str(first.key) + tree_util.keystr(tuple(rest))


def check_step(state: "HostReplay", step: Step) -> list[tuple[npt.NDArray[Any], Array]]:
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
            f"extras_tm1: got the structure {structure}; expected {expected}, as the replay was made with. Make the "
            "replay with the agent's own spec of its extras."
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
            raise ValueError(f"{name}: got a mask; the replay was made without. Make it for a spec with action_mask.")
    return [] if isinstance(state.action_mask, tuple) else [(state.action_mask, step.action_mask_tm1)]


def _is_as_stored(state: "HostReplay", step: Step) -> bool:
    """Whether every field has exactly the stored shape and dtype: the usual case, decided in a microsecond."""
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
    """Refuse a value that NumPy would broadcast or change in kind when it is assigned to the rows of ``storage``."""
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
