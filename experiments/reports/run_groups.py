"""Runs found on disk, finished or not, and which of them differ in seed and environment alone."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...agents.parts import leaves
from ...agents.presets import make_configs, own_leaves
from ..runs.config import CHANGES_NO_LEARNING, RunConfig
from ..runs.files import read_json
from ..runs.folders import is_pretraining, read_config
from ..runs.records import GREEDY, read_jsonl


class FoundRun(NamedTuple):
    """What a comparison reads of one run.

    Attributes:
        folder: where it stands.
        agent: Name under which its agent is shown.
        begins_with: Name of its agent in the table of agents.
        preset: Name of the numbers that the agent began with.
        environment: the id of its environment.
        seed: its seed.
        fields: what else its learning depends on, by name: fields of the agent and of the run.
        step: the environment step of its last record; 0 where there is none.
        returns: ``[E]`` float64, of its training episodes in the order in which they ended.
        ended_at: ``[E]`` float64, the environment steps at which they ended.
        greedy: the mean return of its own evaluation; None where the run has not ended.
        evaluated_at: ``[K]`` float64, environment steps of its evaluations before the end.
        evaluations: ``[K]`` float64, mean returns of these.
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


Groups = dict[str, dict[str, list[FoundRun]]]  # by label, by environment


def run_folders(folders: Iterable[str | pathlib.Path]) -> list[pathlib.Path]:
    """The folders of the runs in ``folders``, each once; a folder that holds runs, however deep, stands for them.

    A folder with no run in it is kept: reading it says what is wrong. Pretraining runs in a folder are passed over,
    because they have no returns.

    Raises:
        ValueError: ``folders`` is empty.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    for folder in map(pathlib.Path, folders):
        holds_runs = folder.is_dir() and not (folder / "config.json").is_file()
        below = sorted(path.parent for path in folder.rglob("config.json")) if holds_runs else []
        below = [run for run in below if not is_pretraining(run)]
        for run in below or [folder]:
            found.setdefault(run.resolve(), run)
    if not found:
        raise ValueError(
            "runs: got none; expected folders of runs, or a folder that holds runs. Try: polyak compare runs"
        )
    return list(found.values())


def read_run(folder: pathlib.Path) -> FoundRun:
    """Reads what a comparison needs of the run in ``folder``.

    Raises:
        ValueError: no run stands there, or a file of it cannot be read.
    """
    try:
        fields = leaves(read_config(folder))
    except (ValueError, TypeError) as error:  # of a config alone, which does not know where it was read
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
    )


def without_repeats(runs: Iterable[FoundRun]) -> tuple[list[FoundRun], list[str]]:
    """A seed counts once: of runs of one config and seed the one that came furthest is kept, the first of equals.

    Returns:
        The runs that are kept, and a sentence for each that is not.
    """
    kept: dict[tuple[str, str, int], FoundRun] = {}
    notes = []
    for run in runs:
        key = (_key(run), run.environment, run.seed)
        other = kept.setdefault(key, run)
        if other is not run:
            kept[key] = max(other, run, key=lambda one: (one.greedy is not None, one.step))
            out = run if kept[key] is other else other
            notes.append(f"{out.folder} repeats {kept[key].folder}, config and seed {run.seed}; it is left out.")
    return list(kept.values()), notes


def grouped(runs: Iterable[FoundRun]) -> Groups:
    """Runs by what sets their group apart (the agent's name alone for a single group) and by environment.

    Fields that say what is written and which processes step the environments (``log_every``, ``workers``) part none.
    """
    groups: Groups = {}
    for run in runs:
        groups.setdefault(_key(run), {}).setdefault(run.environment, []).append(run)
    return dict(zip(_labels([_first(group) for group in groups.values()]), groups.values(), strict=True))


def _key(run: FoundRun) -> str:
    return f"{run.agent} {sorted(run.fields.items())}"


def _first(group: dict[str, list[FoundRun]]) -> FoundRun:
    return next(iter(group.values()))[0]


def _labels(runs: Sequence[FoundRun]) -> list[str]:
    """The agent where there are several, and the fields in which runs differ that the agent's name does not tell.

    A field is shown where runs of one agent have several values, and where only some runs have it as their agent comes.
    """
    departures = [_departures(run) for run in runs]
    several = len({run.agent for run in runs}) > 1
    labels = []
    for run, departed in zip(runs, departures, strict=True):
        shown = [
            f"{name}={_text(value)}"
            for name, value in run.fields.items()
            if any(other.agent == run.agent and other.fields.get(name) != value for other in runs)
            or (name in departed and any(other.get(name) != value for other in departures))
        ]
        labels.append(", ".join([run.agent, *shown] if several or not shown else shown))
    return labels


def _departures(run: FoundRun) -> dict[str, Any]:
    """The fields in which a run is not its agent under its preset."""
    own = leaves(RunConfig()) | own_leaves(run.begins_with) | leaves(make_configs(run.begins_with, run.preset))
    return {name: value for name, value in run.fields.items() if own.get(name) != value}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
