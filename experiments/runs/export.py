"""Export and import of trained parameters.

An export is a folder of two files: the named arrays (``parameters.safetensors`` or ``parameters.npz``), and
``manifest.json``, which describes the arrays and is written last.
"""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ... import __version__
from ...agents.agent_network import network_arguments
from ...agents.fields import check_name
from ...networks import support, value_network_in_words
from ...replay.types import EnvironmentSpec
from ..loops.normalization import CLIP, EPSILON
from ..loops.observations import observation_pipeline
from .config import RunConfig, to_json
from .files import Tree, fitted, read_arrays, read_json, write_arrays, write_json

Format = Literal["safetensors", "npz"]
FORMAT = 1  # format of the manifest
MANIFEST = "manifest.json"


class Exported(NamedTuple):
    """Content of an export.

    Attributes:
        manifest: Content of ``manifest.json``.
        arrays: Arrays by name (``params/head/q_values/w``).
    """

    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __repr__(self) -> str:
        """Line with the function of the network and the number of arrays, without their elements."""
        function = self.manifest.get("network", {}).get("function")
        return f"Exported(network={function!r}, arrays={len(self.arrays)})"


def describe(config: RunConfig, spec: EnvironmentSpec, state: Any) -> dict[str, Any]:
    """Describe a run's network for a manifest: config, observations, and how to build and apply the network.

    Args:
        config: Config of the run.
        spec: Spec of the environments.
        state: Module state of the agent, which may contain the support of the head's atoms.
    """
    seen = observation_pipeline(config.loop, spec).spec
    arguments, core = network_arguments(config.agent, seen), config.agent.network.core
    if (found := support(state)) is not None:
        arguments |= {"v_min": float(found[0]), "v_max": float(found[1])}
    about: dict[str, Any] = {
        "config": to_json(config),
        "observation": {"shape": list(seen.observation.shape), "dtype": str(seen.observation.dtype)},
        "num_actions": spec.num_actions,
        "network": {
            "function": f"polyak.networks.{'value_network' if core is None else 'make_network'}",
            "arguments": arguments,
            "in_words": value_network_in_words(**arguments),
        },
    }
    if config.network != "none" or config.maker != "none":
        about["network"] = {
            "function": config.network if config.network != "none" else config.maker,
            "arguments": {},
            "in_words": "a user-defined network; its code is not part of the export",
        }
    if config.loop.normalization.normalize_observations:
        about["normalization"] = {
            "of": "observations",
            "mean": "normalization/observation/mean",
            "variance": "normalization/observation/variance",
            "epsilon": EPSILON,
            "clip": CLIP,
            "in_words": "the network's input is clip((observation - mean) / sqrt(variance + epsilon), -clip, clip)",
        }
    if config.loop.normalization.normalize_rewards and core is not None:
        about["reward_normalization"] = {
            "variance": "normalization/returns/variance",
            "epsilon": EPSILON,
            "clip": CLIP,
            "in_words": "the LSTM's input is clip(reward / sqrt(variance + epsilon), -clip, clip)",
        }
    if (stack := config.loop.replay.frame_stack) > 1:
        about["frames"] = (
            f"an observation is the last {stack} frames of the episode along the last axis, the oldest first; at the "
            "start of an episode, its first frame is repeated"
        )
    return about


def write_exported(
    folder: pathlib.Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], format: Format
) -> None:
    """Write arrays and their manifest to an existing folder.

    Args:
        folder: Folder of the export.
        arrays: Arrays by name.
        about: Additional entries of the manifest, of JSON types.
        format: Format of the array file.

    Raises:
        ValueError: if the format is unknown.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     write_exported(pathlib.Path(name), {"params/w": np.ones(2, np.float32)}, {"env": "CartPole-v1"}, "npz")
    ...     exported = load_exported(name)
    >>> exported.manifest["file"], exported.manifest["env"], exported.arrays["params/w"].tolist()
    ('parameters.npz', 'CartPole-v1', [1.0, 1.0])
    """
    file = f"parameters.{check_name(format, get_args(Format), 'format')}"
    write_arrays(folder / file, arrays)
    described = [_entry(name, array) for name, array in arrays.items()]
    write_json(folder / MANIFEST, {"format": FORMAT, "polyak": __version__, **about, "file": file, "arrays": described})


def load_exported(folder: str | pathlib.Path) -> Exported:
    """Read an export, and check every array against the manifest.

    Raises:
        ValueError: if ``folder`` contains no export, its format is newer, a file is a link or is outside the folder, or
            an array is missing, unexpected, or differs in shape, dtype or checksum.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder}: no export found (no {MANIFEST}). Exports are made with: polyak export RUN")
    _refuse_link(path)
    manifest = read_json(path)
    if type(manifest.get("format")) is not int or not 1 <= manifest["format"] <= FORMAT:
        raise ValueError(
            f"{path}: format: got {manifest.get('format')!r}, written by polyak {manifest.get('polyak')}; polyak "
            f"{__version__} reads {FORMAT}. Upgrade polyak, or export the run again."
        )
    # Only these names are ever written; none of them refers to another folder.
    files = [f"parameters.{kind}" for kind in get_args(Format)]
    if manifest.get("file") not in files:
        raise ValueError(
            f"{path}: file: got {manifest.get('file')!r}; expected {' or '.join(files)}, beside the manifest (paths "
            "are not followed)."
        )
    _refuse_link(folder / manifest["file"])
    arrays = read_arrays(folder / manifest["file"])
    _compare(arrays, _entries(manifest, path), folder / manifest["file"])
    return Exported(manifest, arrays)


def load_initial(
    initial: str, template: Mapping[str, Tree], part: Literal["all", "encoder"] = "all"
) -> dict[str, Tree]:
    """Read the parameters for a warm start.

    Args:
        initial: Folder of a finished run, folder of an export, or a ``.npz`` or ``.safetensors`` file of either.
        template: Named trees with the structure, shapes and dtypes that the run needs; for an encoder, those of the
            modules below the head.
        part: ``all``, or ``encoder`` for the modules of ``template`` whose top-level name is also in the source; other
            modules of the source are not read.

    Returns:
        Named trees as in ``template``; for an encoder, only the modules found in the source.

    Raises:
        ValueError: if the source does not exist, cannot be read or does not fit; the message has the path of the array
            and both shapes.
    """
    path = pathlib.Path(initial)
    try:
        arrays = _arrays_at(path)
        if part == "encoder":
            arrays, template = _of_encoder(arrays, template, path)
        trees = fitted(arrays, template, str(path))
    except ValueError as error:
        raise ValueError(f"initial: {error}") from None
    return trees


def _of_encoder(
    arrays: Mapping[str, np.ndarray], template: Mapping[str, Tree], path: pathlib.Path
) -> tuple[dict[str, np.ndarray], dict[str, Tree]]:
    """Arrays of a file and modules of a run that belong to their common encoder."""
    firsts = {name.split("/")[1] for name in arrays if name.startswith("params/")}
    wanted = {module.split("/")[0] for module in template["params"]}
    if not firsts & wanted:
        raise ValueError(
            f"{path} has no encoder that fits: it has the modules {', '.join(sorted(firsts)) or '(none)'}; the "
            f"run's encoder has {', '.join(sorted(wanted))}. Give a run with the same torso."
        )
    shared = firsts & wanted
    kept = {
        name: array
        for name, array in arrays.items()
        if (name.startswith(("params/", "state/")) and name.split("/")[1] in shared)
        or name.startswith("normalization/observation/")
    }
    modules = {
        name: {module: leaves for module, leaves in template[name].items() if module.split("/")[0] in shared}
        for name in ("params", "state")
    }
    return kept, {**template, **modules}


def _arrays_at(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise ValueError(f"{path} does not exist. Give a finished run, an export, or a .npz or .safetensors of one.")
    if not path.is_dir():
        return read_arrays(path)
    if (path / MANIFEST).exists():
        return load_exported(path).arrays
    if (path / "parameters.npz").exists():
        return read_arrays(path / "parameters.npz")
    if (path / "config.json").exists():
        raise ValueError(f"{path}: the run has not ended, and has no parameters. Finish it with: polyak resume {path}")
    raise ValueError(f"{path} holds neither a run nor an export. Give a finished run, or make one: polyak train")


def _entry(name: str, array: np.ndarray) -> dict[str, Any]:
    checksum = hashlib.sha256(array.tobytes()).hexdigest()  # elements in C order
    return {"name": name, "shape": list(array.shape), "dtype": str(array.dtype), "sha256": checksum}


def _entries(manifest: Mapping[str, Any], path: pathlib.Path) -> dict[str, dict[str, Any]]:
    listed = manifest.get("arrays")
    if not isinstance(listed, list) or not all(
        isinstance(entry, dict) and entry.keys() == {"name", "shape", "dtype", "sha256"} for entry in listed
    ):
        raise ValueError(f"{path}: arrays: expected a list of name, shape, dtype and sha256; changed by hand?")
    entries = {str(entry["name"]): entry for entry in listed}
    if len(entries) < len(listed):
        raise ValueError(f"{path}: arrays: a name is listed twice; changed by hand?")
    return entries


def _compare(arrays: Mapping[str, np.ndarray], entries: Mapping[str, dict[str, Any]], path: pathlib.Path) -> None:
    for name in sorted(arrays.keys() | entries.keys()):
        if name not in arrays or name not in entries:
            where = "the manifest" if name in entries else "the file"
            raise ValueError(f"{path}: {name} is only in {where}. Export the run again.")
        got, wanted = _entry(name, arrays[name]), entries[name]
        for key in ("shape", "dtype", "sha256"):
            if got[key] != wanted[key]:
                raise ValueError(
                    f"{path}: {name}: got {key} {got[key]}; the manifest has {wanted[key]}. The file was changed or "
                    "damaged; export the run again."
                )


def _refuse_link(path: pathlib.Path) -> None:
    if path.is_symlink():
        raise ValueError(f"{path}: is a symbolic link, which is not followed. Copy the file there.")
