"""Runs found on disk, finished or not, and lanes of sweeps among them."""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...agents.parts import leaves
from ..runs.config import CHANGES_NO_LEARNING
from ..runs.files import read_json
from ..runs.folders import DIVERGED, LANE_OF, SWEEP, is_pretraining, read_config
from ..runs.records import GREEDY, read_jsonl

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


class FoundRun(NamedTuple):
    """Data of one run that a comparison reads.

    Attributes:
        folder: Folder of the run.
        agent: Name under which the agent is shown.
        begins_with: Name of the agent in the table of agents.
        preset: Name of the settings that the agent began with.
        environment: Environment id.
        seed: Seed of the run.
        fields: Fields of the agent, the loop and the run that its learning depends on, by name.
        step: Environment step of the last record; 0 if there is none.
        returns: Returns of the training episodes, in the order in which they ended, ``[E]`` float64.
        ended_at: Environment steps at which these episodes ended, ``[E]`` float64.
        greedy: Mean return of the run's final evaluation; None if the run has not ended.
        evaluated_at: Environment steps of the evaluations before the end, ``[K]`` float64.
        evaluations: Mean returns of these evaluations, ``[K]`` float64.
        diverged: Reason of a run of a sweep that has diverged; None for any other run.
    """

    folder: pathlib.Path
    agent: str
    begins_with: str
    preset: str
    environment: str
    seed: int
    fields: Mapping[str, Any]
    step: int
    returns: np.ndarray
    ended_at: np.ndarray
    greedy: float | None
    evaluated_at: np.ndarray
    evaluations: np.ndarray
    diverged: str | None = None


def run_folders(folders: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """Return the folders of the runs in ``folders``, each once, in the order given.

    A folder that holds runs at any depth is replaced by these runs, sorted by path with numbers by value
    (``periodic-50`` before ``periodic-500``); the lanes of a sweep are in the order of its grid. A folder without a run
    stays in the list, so that :func:`read_run` reports it. Pretraining runs in a folder are left out, because they have
    no returns.

    Raises:
        ValueError: if ``folders`` is empty.
        TypeError: if an element is not a path.
    """
    folders = list(folders)
    for folder in folders:
        if not isinstance(folder, str | pathlib.Path):
            raise TypeError(
                f"runs: got {folder!r} ({type(folder).__name__}); expected paths of folders. Give a run as run.folder, "
                "and a list as compare(*folders)."
            )
    found: dict[pathlib.Path, pathlib.Path] = {}
    for folder in map(pathlib.Path, folders):
        holds_runs = folder.is_dir() and not (folder / "config.json").is_file()
        below = _runs_below(folder) if holds_runs else []
        below = [run for run in below if not is_pretraining(run)]
        for run in below or [folder]:
            found.setdefault(run.resolve(), run)
    if not found:
        raise ValueError(
            "runs: got none; expected folders of runs, or a folder that holds runs. Try: polyak compare runs"
        )
    return list(found.values())


def read_run(folder: pathlib.Path) -> FoundRun:
    """Read the run in ``folder``.

    Raises:
        ValueError: if ``folder`` holds no run, or a file of the run cannot be read.
    """
    try:
        fields = leaves(read_config(folder))
    except (ValueError, TypeError) as error:  # of the config, which does not know its folder
        message = str(error)
        raise ValueError(message if message.startswith(str(folder)) else f"{folder}: {message}") from None
    name, own, preset, environment, seed = (fields.pop(one) for one in ("agent_name", "name", "preset", "env", "seed"))
    metrics, evaluation = folder / "metrics.jsonl", folder / "evaluation.json"
    records = list(read_jsonl(metrics)) if metrics.is_file() else []
    evaluated = [record for record in records if record.get(GREEDY) is not None]
    return FoundRun(
        folder,
        own or name,
        name,
        preset,
        environment,
        seed,
        {name: value for name, value in fields.items() if name not in CHANGES_NO_LEARNING},
        step=records[-1]["step"] if records else 0,
        returns=np.array([value for record in records for value in record["returns"]], np.float64),
        ended_at=np.array([step for record in records for step in record["ended_at"]], np.float64),
        greedy=float(read_json(evaluation)["mean"]) if evaluation.is_file() else None,
        evaluated_at=np.array([record["step"] for record in evaluated], np.float64),
        evaluations=np.array([record[GREEDY] for record in evaluated], np.float64),
        diverged=_reason_of_divergence(folder),
    )


def _runs_below(folder: pathlib.Path) -> list[pathlib.Path]:
    found = sorted((path.parent for path in folder.rglob("config.json")), key=_natural)
    if not (folder / SWEEP).is_file():
        return found
    lanes = {folder / name: number for number, name in enumerate(_of_sweep(folder, "lanes", list))}
    return sorted(found, key=lambda run: lanes.get(run, len(lanes)))


def _reason_of_divergence(folder: pathlib.Path) -> str | None:
    """Reason of a lane that has diverged, from the file of its sweep; None for any other run."""
    lane_of = read_json(folder / "config.json").get(LANE_OF)
    if lane_of is None or not (folder / lane_of / SWEEP).is_file():  # the lane may have been copied elsewhere
        return None
    sweep = pathlib.Path(os.path.normpath(folder / lane_of))
    reason = _of_sweep(sweep, DIVERGED, dict).get(pathlib.PurePath(os.path.relpath(folder, sweep)).as_posix())
    return None if reason is None else str(reason)


def _of_sweep(sweep: pathlib.Path, name: str, kind: type[Any]) -> Any:
    found = read_json(sweep / SWEEP).get(name)
    if not isinstance(found, kind):
        raise ValueError(f'{sweep / SWEEP}: got no "{name}"; was the file changed by hand?')
    return found


def _natural(path: pathlib.Path) -> list[list[str | float]]:
    """Key of a path whose numbers are sorted by value."""
    return [
        [float(piece) if number % 2 else piece for number, piece in enumerate(_NUMBER.split(part))]
        for part in path.parts
    ]
