"""Folder of a run: its default name, the checks for a new run, and its config."""

import pathlib
import re
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ... import __version__
from . import pretrain_config
from .config import RunConfig, from_json
from .files import read_json
from .pretrain_config import PretrainConfig
from .version_0_1_0 import config_from_0_1_0

SWEEP = "sweep.json"  # in the folder of a sweep
LANE_OF = "lane_of"  # in the config.json of a lane: path of the folder of its sweep, relative to that of the lane
DIVERGED = "diverged"  # in sweep.json: name of each lane that has diverged to the reason


def prepare_folder(folder: pathlib.Path) -> None:
    """Make the folder of a new run.

    Raises:
        ValueError: if the folder contains a run or other files, is a file, or is not writable.
    """
    if folder.is_file():
        raise ValueError(f"out: {folder} is a file; expected a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()):
        if (folder / "config.json").exists():
            raise ValueError(
                f"out: {folder} holds a run. Give another folder, or continue it: {resume_command(folder)}"
            )
        if is_sweep(folder):
            raise ValueError(
                f"out: {folder} holds a sweep. Give another folder, or continue it: {resume_command(folder)}"
            )
        raise ValueError(f"out: {folder} holds files. Give another folder, new or empty.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be written ({error.strerror}). Give another folder.") from None


def default_folder(config: RunConfig | PretrainConfig) -> pathlib.Path:
    """Default folder, ``runs/dqn-CartPole-v1-periodic-200-seed0-DATE-TIME-1f3a``; the last four letters are random.

    Characters outside of names become dashes. For pretraining, the name contains the method and the data.
    """
    if isinstance(config, PretrainConfig):
        names: tuple[str, ...] = (config.method, pathlib.Path(config.data).stem, config.byol.target)
    else:
        names = (config.label, config.env, config.agent.target)
    plain = ["-".join(re.findall(r"[\w.]+", name)) for name in names]
    moment, apart = time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)
    return pathlib.Path("runs") / f"{'-'.join(plain)[:120]}-seed{config.seed}-{moment}-{apart}"


def default_sweep_folder(config: RunConfig, axes: Mapping[str, Sequence[str]]) -> pathlib.Path:
    """Default folder of a sweep, ``runs/sweep-dqn-CartPole-v1-target-DATE-TIME-1f3a``.

    Args:
        config: Config of a lane.
        axes: Names of the axes to their values.
    """
    names = ("sweep", config.label, config.env, *axes)
    plain = ["-".join(re.findall(r"[\w.]+", name)) for name in names]
    moment, apart = time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2)
    return pathlib.Path("runs") / f"{'-'.join(plain)[:120]}-{moment}-{apart}"


def read_config(folder: pathlib.Path) -> RunConfig:
    """Read the config of the run in ``folder``; a config of version 0.1.0 is converted.

    Raises:
        ValueError: if there is no config, or this version of polyak cannot read it.
    """
    return _config_of(folder, _read_written(folder))


def read_config_file(path: pathlib.Path) -> RunConfig:
    """Read the config of a run from its ``config.json``, for a new run; a file of version 0.1.0 is converted.

    Raises:
        ValueError, TypeError: if there is no such file, or it has no config that this version of polyak knows; the
            message has the file and the path of the field.
    """
    if path.is_dir():
        raise ValueError(f"config: {path} is a folder; expected a file. Try --config {path / 'config.json'}")
    if not path.is_file():
        raise ValueError(f"config: no file {path}; expected the config.json of a run, as in runs/RUN/config.json.")
    try:
        written = read_json(path)
        if not isinstance(written.get("config"), dict):
            raise ValueError('got no "config"; expected the config.json of a run.')
        return _config_of(path.parent, written)
    except (ValueError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{path.parent}: ")
        raise type(error)(f"config: {path}: {reason}") from None


def is_sweep(folder: pathlib.Path) -> bool:
    """Whether ``folder`` contains a sweep."""
    return (folder / SWEEP).is_file()


def is_pretraining(folder: pathlib.Path) -> bool:
    """Whether ``folder`` contains a pretraining run; False if no config can be read."""
    try:
        return "method" in _read_written(folder)["config"]
    except ValueError:
        return False


def read_pretrain_config(folder: pathlib.Path) -> PretrainConfig:
    """Read the config of the pretraining run in ``folder``.

    Raises:
        ValueError: if there is no config, or this version of polyak cannot read it.
    """
    written = _read_written(folder)
    if "method" not in written["config"]:
        raise ValueError(f"{folder}: the run trains an agent and pretrains no encoder. Load it with polyak.load.")
    try:
        return pretrain_config.from_json(written["config"])
    except (ValueError, TypeError) as error:
        raise _of_another_version(folder, written, error) or error from None


def read_any_config_to_resume(folder: pathlib.Path) -> RunConfig | PretrainConfig:
    """Read the config of a training or pretraining run, to continue the run.

    Raises:
        ValueError: as :func:`read_config_to_resume` and :func:`read_pretrain_config`.
    """
    _read_written(folder)  # raises if there is no readable config
    return read_pretrain_config(folder) if is_pretraining(folder) else read_config_to_resume(folder)


def read_config_to_resume(folder: pathlib.Path) -> RunConfig:
    """Read the config of a training run, to continue the run; the run must be of this version.

    Raises:
        ValueError: as :func:`read_config`, or if the run was started by version 0.1.0, whose checkpoints cannot be
            read.
    """
    found = _read_written(folder)
    if LANE_OF in found and found["resolved"]["loop"] == "device":
        sweep = (folder / found[LANE_OF]).resolve()
        raise ValueError(f"{folder}: the run is a lane of a sweep. Continue the sweep: {resume_command(sweep)}")
    written = found["config"]
    if "format" not in written and "method" not in written:
        if (folder / "evaluation.json").is_file():
            way_out = f"It has ended; evaluate it with: polyak evaluate {shlex.quote(str(folder))}"
        else:
            way_out = "Finish it with polyak 0.1 (pip install 'polyak<0.2'), or start a new run"
            has_parameters = (folder / "parameters.npz").is_file()
            way_out += f" from its parameters: --initial {shlex.quote(str(folder))}" if has_parameters else "."
        raise ValueError(f"{folder}: the run was begun by polyak 0.1.0, and cannot be continued by this one. {way_out}")
    return read_config(folder)


def _config_of(folder: pathlib.Path, written: dict[str, Any]) -> RunConfig:
    """Config of the run in ``folder``, from the content of its ``config.json``."""
    if "method" in written["config"]:
        raise ValueError(
            f"{folder}: the run pretrains an encoder, and has no agent. Train an agent from it with: polyak train "
            f"--initial {shlex.quote(str(folder))} --initial-part encoder"
        )
    try:
        return from_json(written["config"]) if "format" in written["config"] else config_from_0_1_0(written["config"])
    except (ValueError, TypeError) as error:
        raise _of_another_version(folder, written, error) or error from None


def _read_written(folder: pathlib.Path) -> dict[str, Any]:
    """Content of ``config.json``."""
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; expected the folder of a run. Parameters in a .npz or .safetensors can start a run "
            "(--initial); pickles are never loaded."
        )
    if (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder} holds an export, not a run. Read it with polyak.load_exported, or start a run from it: "
            f"--initial {folder}"
        )
    if is_sweep(folder):
        lanes = read_json(folder / SWEEP).get("lanes", [])
        raise ValueError(
            f"{folder} holds a sweep, not a run. Give the folder of a lane, such as "
            f"{folder / str(next(iter(lanes), 'LANE'))}. polyak compare and polyak resume take the folder of a sweep."
        )
    if not (folder / "config.json").is_file():
        below = sorted(path.parent.name for path in folder.glob("*/config.json")) if folder.is_dir() else []
        hint = f"Runs below it: {', '.join(below[-5:])}." if below else "Runs are made with: polyak train --out FOLDER"
        raise ValueError(f"{folder}: no run found (no config.json). {hint}")
    written = read_json(folder / "config.json")
    if not isinstance(written.get("config"), dict):
        raise ValueError(f'{folder / "config.json"}: got no "config"; was the file changed by hand?')
    return written


def resume_command(folder: pathlib.Path) -> str:
    """Command that continues the run in ``folder``.

    >>> resume_command(pathlib.Path("runs/first try"))
    "polyak resume 'runs/first try'"
    """
    return f"polyak resume {shlex.quote(str(folder))}"


def _of_another_version(folder: pathlib.Path, written: dict[str, Any], error: Exception) -> ValueError | None:
    """Error for a config that another version of polyak wrote; None for this version."""
    versions = written.get("versions")
    other = versions.get("polyak") if isinstance(versions, dict) else None
    if other is None or other == __version__:
        return None
    newer = _release(str(other)) > _release(__version__)
    way_out = "Upgrade polyak." if newer else f"Read it with polyak {other}."
    return ValueError(
        f"{folder}: the run was made by polyak {other}, {'a newer' if newer else 'another'} version, and this is "
        f"polyak {__version__}, which cannot read its config ({str(error).rstrip('.')}). {way_out}"
    )


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]
