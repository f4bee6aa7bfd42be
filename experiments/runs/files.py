"""Files of a run, written whole or not at all and read without pickle: JSON, and arrays by name."""

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
# Most bytes that an archive of arrays may unpack to, as a multiple of its size; those of NumPy are not compressed.
_UNPACKED = 100


def save_variables(path: pathlib.Path, trees: Mapping[str, Tree]) -> None:
    """Write named trees as arrays by path (``params/mlp/~/linear_0/w`` for a leaf of ``params``)."""
    write_arrays(path, {name: np.asarray(leaf) for name, leaf in _named(trees)})


def load_variables(path: pathlib.Path, template: Mapping[str, Tree]) -> dict[str, Tree]:
    """Read named trees of the structure, shapes and dtypes of ``template``; NumPy arrays where it has them.

    Raises:
        ValueError: if the file is no npz of plain arrays, does not fit or is not finite; the message names the array.
    """
    return fitted(read_arrays(path), template, str(path))


def fitted(arrays: Mapping[str, np.ndarray], template: Mapping[str, Tree], source: str) -> dict[str, Tree]:
    """Arrange arrays by path as trees of the structure, shapes and dtypes of ``template``; NumPy where it has NumPy.

    Raises:
        ValueError: if they do not fit or are not finite; the message begins with ``source`` and names the array.
    """
    expected = dict(_named(template))
    for name in sorted(arrays.keys() | expected.keys()):
        got, wanted = (_describe(named.get(name)) for named in (arrays, expected))
        if got != wanted:
            raise ValueError(f"{source}: {name}: got {got}; the config's network has {wanted}. {_way_out(name, got)}")
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{source}: {name} is not finite. Its run diverged; give another.")
    leaves = [
        jax.numpy.array(arrays[name]) if isinstance(leaf, jax.Array) else arrays[name]
        for name, leaf in expected.items()
    ]
    trees: dict[str, Tree] = jax.tree.unflatten(jax.tree.structure(dict(template)), leaves)
    return trees


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as ``.npz`` or ``.safetensors``, by the path's suffix; neither holds pickles."""
    if path.suffix == ".npz":
        _replace_whole(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]  # names are no keywords
        return
    import safetensors.numpy

    # Its writer takes the memory as it lies.
    data = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    _replace_whole(path, lambda file: file.write(data))


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read a file of :func:`write_arrays`.

    Raises:
        ValueError: if it is no such file, or holds something else than plain arrays; no pickle is ever loaded.
    """
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(
            f"{path}: got {path.suffix or 'no suffix'}; expected .npz or .safetensors. Other formats, .pkl, .pt and "
            ".pth among them, may be pickles, which run code as they are read, and are never loaded. Where the file "
            "is your own, write its arrays with numpy.savez or safetensors."
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
            raise ValueError("a member is no array")
    except _SizeError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # whatever a file of something else makes a reader raise
        kind = path.suffix.removeprefix(".")
        raise ValueError(f"{path}: cannot be read as {kind} of plain arrays (no pickle is ever loaded).") from error
    return arrays


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Lock the folder of a run against other processes; the lock ends with the process.

    Raises:
        ValueError: if another process has it (the message names its number), or the folder cannot be written.
    """
    if sys.platform == "win32":  # has no such locks
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
                f"{folder}: process {file.read() or '?'} is at work there. Wait for it, or stop it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    _replace_whole(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: if it does not.
    """
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: got no JSON ({error}); the file was changed by hand?") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: got a {type(value).__name__}; expected a JSON object.")
    return value


class _SizeError(ValueError):
    """An archive that unpacks to far more than its size."""


def _check_size(path: pathlib.Path) -> None:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _UNPACKED * size + 2**20:
        raise _SizeError(
            f"got a file of {size} bytes that unpacks to {unpacked}; expected at most {_UNPACKED} times as many. Where "
            "it is your own, write it with numpy.savez, which does not compress."
        )


def _named(trees: Mapping[str, Tree]) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(dict(trees))[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _way_out(name: str, got: str) -> str:
    if name.endswith("/support") and got == "nothing":
        return "The source was trained with a given support: give --v-min and --v-max as it has them."
    if name.endswith("/support"):
        return "The source derived its support from rewards: leave out --v-min and --v-max."
    return (
        "Parameters fit a network of the same layers, on an environment of the same spaces, under the same "
        "normalisation."
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
