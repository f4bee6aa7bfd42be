"""Files of a run, written atomically and read without pickle: JSON, and named arrays."""

import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

Tree = Any
# Maximum unpacked size of an array archive, as a multiple of its file size; NumPy's archives are not compressed.
_UNPACKED = 100


def save_variables(path: pathlib.Path, trees: Mapping[str, Tree]) -> None:
    """Write named trees as arrays named by path (``params/mlp/~/linear_0/w`` for a leaf of ``params``)."""
    write_arrays(path, {name: np.asarray(leaf) for name, leaf in _named(trees)})


def load_variables(path: pathlib.Path, template: Mapping[str, Tree]) -> dict[str, Tree]:
    """Read named trees with the structure, shapes and dtypes of ``template``; NumPy leaves stay NumPy arrays.

    Raises:
        ValueError: if the file is not an archive of plain arrays, or if an array does not fit or is not finite; the
            message names the array.
    """
    return fitted(read_arrays(path), template, str(path))


def fitted(arrays: Mapping[str, np.ndarray], template: Mapping[str, Tree], source: str) -> dict[str, Tree]:
    """Arrange arrays by path as trees with the structure of ``template``; NumPy leaves stay NumPy arrays.

    Raises:
        ValueError: if an array does not fit ``template`` in shape or dtype, or is not finite; the message starts with
            ``source`` and names the array.
    """
    expected = dict(_named(template))
    for name in sorted(arrays.keys() | expected.keys()):
        got, wanted = (_describe(named.get(name)) for named in (arrays, expected))
        if got != wanted:
            raise ValueError(f"{source}: {name}: got {got}; the config's network has {wanted}. {_way_out(name, got)}")
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{source}: {name} is not finite. Its run diverged; give another run.")
    leaves = [
        jax.numpy.array(arrays[name]) if isinstance(leaf, jax.Array) else arrays[name]
        for name, leaf in expected.items()
    ]
    trees: dict[str, Tree] = jax.tree.unflatten(jax.tree.structure(dict(template)), leaves)
    return trees


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz`` or ``.safetensors``, by the suffix of the path; neither format uses pickle."""
    if path.suffix == ".npz":
        _replace_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]  # names are no keywords
        return
    import safetensors.numpy

    # safetensors writes the memory of an array without regard to its strides.
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    _replace_whole(path, lambda file: file.write(data))


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read a file written by :func:`write_arrays`.

    Raises:
        ValueError: if the file is not of that format or contains other objects than plain arrays; no pickle is loaded.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"{path}: got {path.suffix or 'no suffix'}; expected .npz or .safetensors. Other formats, such as .pkl, "
            ".pt and .pth, may be pickles, which execute code when they are read, and are never loaded. If the file "
            "is your own, save its arrays with numpy.savez or safetensors."
        )
    try:
        if path.suffix == ".npz":
            _check_size(path)
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        else:
            import safetensors.numpy

            arrays = safetensors.numpy.load(path.read_bytes())
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("a member is not an array")
    except _SizeError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a file of another kind can make the reader raise any exception
        kind = path.suffix.removeprefix(".")
        raise ValueError(f"{path}: cannot be read as {kind} of plain arrays (no pickle is ever loaded).") from error
    return arrays


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Lock the folder of a run against other processes; the lock ends with the process.

    Raises:
        ValueError: if another process holds the lock (the message has its process id), or the folder is not writable.
    """
    if sys.platform == "win32":  # has no file locks of this kind
        yield
        return
    import fcntl

    try:
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}). Copy the run to where it can be.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ValueError(
                f"{folder}: process {file.read() or '?'} is using this folder. Wait for it, or stop it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file atomically."""
    _replace_whole(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Raises:
        ValueError: if it contains anything else.
    """
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested lists
        raise ValueError(f"{path}: got no JSON ({error}); was the file changed by hand?") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: got a {type(value).__name__}; expected a JSON object.")
    return value


class _SizeError(ValueError):
    """Error for an archive whose unpacked size far exceeds its file size."""


def _check_size(path: pathlib.Path) -> None:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _UNPACKED * size + 2**20:
        raise _SizeError(
            f"got a file of {size} bytes that unpacks to {unpacked}; expected at most {_UNPACKED} times as many. If it "
            "is your own, save it with numpy.savez, which does not compress."
        )


def _named(trees: Mapping[str, Tree]) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(dict(trees))[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _way_out(name: str, got: str) -> str:
    if name.endswith("/support") and got == "nothing":
        return "The source was trained with a fixed support: give the same --v-min and --v-max."
    if name.endswith("/support"):
        return "The source derived its support from rewards: omit --v-min and --v-max."
    return (
        "Parameters fit only a network with the same layers, for an environment with the same spaces and the same "
        "normalization."
    )


def _describe(array: Any) -> str:
    return "nothing" if array is None else f"{array.dtype}{tuple(array.shape)}"


def _replace_whole(path: pathlib.Path, write: Callable[[Any], Any]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
