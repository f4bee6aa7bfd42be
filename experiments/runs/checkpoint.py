"""Checkpoints: a tree of arrays and a JSON object, written atomically with Orbax and restored bit for bit.

A checkpoint is a folder named by its step. Orbax writes it under a temporary name and renames it. The checksums of its
files are written last, so a folder with checksums is complete even if the run is killed. Damaged files are detected
before Orbax reads them. No content is unpickled or evaluated.
"""

import json
import logging
import pathlib
import shutil
import warnings
import zlib
from typing import Any

import jax
import numpy as np

from .files import read_json, write_json

Tree = Any
KEEP = 2  # number of complete checkpoints that are kept
_CHECKSUMS = "checksums.json"  # in the folder of a checkpoint: checksums of its files


def save(folder: pathlib.Path, step: int, tree: Tree, loose: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write the checkpoint of ``step``, then remove all but the two newest checkpoints.

    Args:
        folder: Folder of all checkpoints of a run.
        step: Number of environment steps, which names the checkpoint.
        tree: Tree of arrays and PRNG keys. The template for restoring must have the same paths, shapes and dtypes.
        loose: Additional NumPy arrays, whose shapes may differ between checkpoints.
        metadata: JSON object.

    Raises:
        OSError: if the disk is full or read-only. Older checkpoints are kept, and no partial checkpoint remains.
    """
    path = folder / str(step)
    # Orbax rejects arrays of size zero. The template contains those of the tree; those of ``loose`` are noted here.
    empty = {name: [list(array.shape), str(array.dtype)] for name, array in loose.items() if not array.size}
    groups = {"tree": _flatten(tree), "loose": loose}
    arrays = {
        f"{group}:{name}": array for group, named in groups.items() for name, array in named.items() if array.size
    }
    text = json.dumps({"empty": empty, "metadata": metadata}).encode()
    arrays["metadata:json"] = np.frombuffer(text, np.uint8)
    checkpointer = _checkpointer()
    try:
        checkpointer.save(path.absolute(), arrays, force=True)
        write_json(path / _CHECKSUMS, _file_checksums(path))
    except Exception as error:  # Orbax reports a full disk with several exceptions
        remove_unfinished(folder)
        raise OSError(f"checkpoint {path} could not be written: {error}") from error
    finally:
        checkpointer.close()
    for old in steps_saved(folder)[:-KEEP]:
        shutil.rmtree(folder / str(old), ignore_errors=True)


def steps_saved(folder: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints in ``folder``, oldest first, ordered by step and not by file time.

    >>> steps_saved(pathlib.Path("no such folder"))
    []
    """
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and _is_complete(path))


def restore_latest(folder: pathlib.Path, template: Tree) -> tuple[Tree, dict[str, np.ndarray], dict[str, Any]]:
    """Read the newest readable checkpoint; skip an unreadable one with a warning.

    Args:
        folder: Folder of all checkpoints of a run.
        template: Tree with the structure of the saved tree; its leaves determine NumPy arrays, JAX arrays and keys.

    Returns:
        ``(tree, loose, metadata)`` as passed to :func:`save`.

    Raises:
        FileNotFoundError: if there is no readable checkpoint.
        ValueError: if the checkpoint belongs to a run with other shapes; the message lists the paths that differ.
    """
    for step in reversed(steps_saved(folder)):
        try:
            groups, noted = _read(folder / str(step))
        except Exception as error:  # a damaged file can raise any exception
            warnings.warn(f"checkpoint {step} cannot be read ({error}); trying the one before it", stacklevel=2)
            continue
        empty = {name: np.empty(shape, dtype) for name, (shape, dtype) in noted["empty"].items()}
        tree = _unflatten(template, groups.get("tree", {}), folder / str(step))
        return tree, groups.get("loose", {}) | empty, noted["metadata"]
    raise FileNotFoundError(f"{folder}: no readable checkpoint; start a new run.")


def remove_unfinished(folder: pathlib.Path) -> None:
    """Remove partial checkpoints that a killed run has left."""
    for path in folder.glob("*"):
        if "orbax-checkpoint-tmp" in path.name or (path.name.isdecimal() and not _is_complete(path)):
            shutil.rmtree(path, ignore_errors=True)


def _checkpointer() -> Any:
    import orbax.checkpoint  # slow to import, and needed only by runs that save

    logging.getLogger("absl").setLevel(logging.ERROR)
    return orbax.checkpoint.PyTreeCheckpointer()


def _is_complete(path: pathlib.Path) -> bool:
    return (path / _CHECKSUMS).is_file()


def _file_checksums(path: pathlib.Path) -> dict[str, int]:
    """Checksum of each file of a checkpoint, by its path relative to the checkpoint's folder."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != _CHECKSUMS)
    return {file.relative_to(path).as_posix(): zlib.crc32(file.read_bytes()) for file in files}


def _check_files(path: pathlib.Path) -> None:
    noted, found = read_json(path / _CHECKSUMS), _file_checksums(path)
    for name in sorted(noted.keys() | found.keys()):
        if noted.get(name) != found.get(name):
            raise ValueError(f"its file {name} was changed")


def _read(path: pathlib.Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    import orbax.checkpoint

    _check_files(path)
    checkpointer = _checkpointer()
    try:
        saved = checkpointer.metadata(path.absolute()).item_metadata.tree
        as_numpy = orbax.checkpoint.RestoreArgs(restore_type=np.ndarray)
        arrays = checkpointer.restore(path.absolute(), restore_args=dict.fromkeys(saved, as_numpy))
    finally:
        checkpointer.close()
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        group, _, rest = name.partition(":")
        groups.setdefault(group, {})[rest] = array
    noted: dict[str, Any] = json.loads(groups.pop("metadata")["json"].tobytes())
    return groups, noted


def _flatten(tree: Tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): _as_numpy(leaf) for path, leaf in leaves}


def _unflatten(template: Tree, arrays: dict[str, np.ndarray], path: pathlib.Path) -> Tree:
    entries, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {jax.tree_util.keystr(path): leaf for path, leaf in entries}
    wrong = [f"only in the checkpoint: {name}" for name in arrays if name not in expected]
    leaves = []
    for name, leaf in expected.items():
        wanted = _as_numpy(leaf)
        found = arrays.get(name, wanted if wanted.size == 0 else None)
        if found is None:
            wrong.append(f"not in the checkpoint: {name}")
        elif found.shape != wanted.shape or found.dtype != wanted.dtype:
            wrong.append(f"{name}: {found.dtype}{found.shape} in the checkpoint, {wanted.dtype}{wanted.shape} expected")
        else:
            leaves.append(_as_leaf(leaf, found))
    if wrong:
        raise ValueError(f"{path}: the checkpoint is of another run; {'; '.join(wrong[:8])}.")
    return jax.tree_util.tree_unflatten(structure, leaves)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _as_leaf(template: Any, array: np.ndarray) -> Any:
    if _is_key(template):
        return jax.random.wrap_key_data(jax.numpy.array(array), impl=jax.random.key_impl(template))
    # jnp.array copies: device_put of a NumPy array may share its memory.
    return jax.numpy.array(array) if isinstance(template, jax.Array) else np.array(array)
