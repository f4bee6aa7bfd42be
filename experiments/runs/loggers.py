"""Loggers: copies of the records as CSV, TensorBoard, Weights & Biases or trackio.

``metrics.jsonl`` has all records. A logger that fails is reported once and closed; the run continues without it.
"""

import contextlib
import csv
import importlib
import io
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO

from .records import TIMES, episodes, read_jsonl

Record = Mapping[str, Any]


_PACKAGES = ("wandb", "trackio")  # loggers that need a package of the same name


class Logger(Protocol):
    """Writer of records."""

    def write(self, record: Record) -> None:
        """Write one record."""

    def close(self) -> None:
        """Close the writer; called once."""


def check_installed(names: Sequence[str]) -> None:
    """Check that the packages of the loggers are installed.

    Raises:
        ValueError: if one is not.

    >>> check_installed(["csv", "tensorboard"])
    """
    for name in [name for name in names if name in _PACKAGES]:
        try:
            _ = importlib.import_module(name).init  # a folder "wandb" can be imported as a module, but has no init
        except Exception as error:
            raise ValueError(
                f"loggers: {name!r} needs the package {name}, which cannot be imported ({error}). Install it with "
                f"`pip install {name}`, or leave it out."
            ) from error


@contextlib.contextmanager
def open_loggers(
    names: Sequence[str], folder: pathlib.Path, step: int, config: Mapping[str, Any], report: Callable[[str], None]
) -> Iterator[Callable[[Record], None]]:
    """Open loggers and yield a function that writes a record to each; one that fails is reported, closed and dropped.

    Args:
        names: Names of the loggers.
        folder: Folder of the run; its ``metrics.jsonl`` holds the records up to ``step``, and no more.
        step: Number of environment steps so far.
        config: Content of ``config.json``.
        report: Function called with a message when a logger fails.
    """
    loggers: dict[str, Logger] = {}

    def attempt(name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except Exception as error:  # of any kind: the run continues without the logger
            if name in loggers:
                with contextlib.suppress(Exception):
                    loggers.pop(name).close()
            report(
                f"logger {name} failed ({type(error).__name__}: {error}); the run continues without it, and "
                "metrics.jsonl has all records"
            )

    def write(record: Record) -> None:
        for name, logger in list(loggers.items()):
            attempt(name, logger.write, record)

    try:
        for name in names:
            logger = attempt(name, _OPEN[name], folder, step, config)
            if logger is not None:
                loggers[name] = logger
        yield write
    finally:
        for name, logger in list(loggers.items()):
            attempt(name, logger.close)


def scalars(record: Record) -> dict[str, Any]:
    """Numbers of a record without its lists, which belong to single episodes.

    >>> scalars({"step": 5, "loss": None, "returns": [1.0]})
    {'step': 5, 'loss': None}
    """
    return {name: value for name, value in record.items() if not isinstance(value, list)}


# Groups of the tags, by a field or by the part of its name before the first "/". All other fields are measured by the
# learner, or by a term of the loss that a person adds: they are in losses/.
_CHARTS = (
    *("learner_steps", "episodes", "env_restarts", "replay_size", "epsilon", "resets", "shifts", "reward_scale"),
    *("return_last", "return_mean", "return_mean_20", "return_mean_window", "length_mean_20"),
    *("greedy_return", "greedy_standard_error", "probe", "n_steps", "discount", "importance_exponent"),
    *("feature_rank", "dormant_units"),
)
_TARGETS = ("target_distance", "target_churn", "target_agreement", "policy_churn", "steps_since_update")
_GROUPS = dict.fromkeys(_CHARTS, "charts") | dict.fromkeys(_TARGETS, "targets") | dict.fromkeys(TIMES, "time")


def tag(name: str) -> str:
    """Tag of a field of a record in TensorBoard, Weights & Biases and trackio, ``GROUP/FIELD``.

    >>> tag("return_mean"), tag("loss"), tag("target_distance/q"), tag("steps_per_second")
    ('charts/return_mean', 'losses/loss', 'targets/target_distance/q', 'time/steps_per_second')
    """
    return f"{_GROUPS.get(name.split('/')[0], 'losses')}/{name}"


def points(record: Record) -> Iterator[tuple[int, dict[str, float]]]:
    """Numbers of a record by environment step and tag: each episode where it ended, then the others at its step.

    >>> list(points({"step": 9, "loss": None, "q": 0.5, "ended_at": [7], "returns": [3.0], "lengths": [4]}))
    [(7, {'charts/episode_return': 3.0, 'charts/episode_length': 4}), (9, {'losses/q': 0.5})]
    """
    for step, episode_return, length in episodes(record):
        yield step, _known({"charts/episode_return": episode_return, "charts/episode_length": length})
    numbers = scalars(record)
    yield numbers.pop("step"), _known({tag(name): value for name, value in numbers.items()})


def _known(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if value is not None}


def settings_table(config: Mapping[str, Any]) -> str:
    """Markdown table of nested settings, one row for each leaf by its path.

    >>> print(settings_table({"config": {"seed": 3, "agent": {"targets": {}}}}))
    | setting | value |
    |---|---|
    | config.seed | `3` |
    | config.agent.targets | `{}` |
    """

    def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping) and value:
            for name, part in value.items():
                yield from leaves(part, f"{path}.{name}".removeprefix("."))
        else:
            yield path, json.dumps(value).replace("|", "\\|")

    return "\n".join(
        ["| setting | value |", "|---|---|", *(f"| {path} | `{text}` |" for path, text in leaves(config, ""))]
    )


class _Csv:
    """``metrics.csv`` with a column for each number, and ``episodes.csv`` with a row for each training episode.

    Both are written from the records so far when the run is begun or resumed. The columns of ``metrics.csv`` are in the
    order in which records first have them.
    """

    def __init__(self, folder: pathlib.Path, step: int, config: Mapping[str, Any]) -> None:
        del step, config
        self._path = folder / "metrics.csv"
        records = list(read_jsonl(folder / "metrics.jsonl"))
        self._make([scalars(record) for record in records])
        self._episodes = _EpisodesCsv(folder / "episodes.csv")
        self._episodes.write(records)

    def write(self, record: Record) -> None:
        self._episodes.write([record])
        row = scalars(record)
        if row.keys() <= set(self._writer.fieldnames):
            self._writer.writerow(row)
            self._file.flush()
            return
        self._file.close()
        with self._path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._make([*rows, row])

    def close(self) -> None:
        with contextlib.closing(self._episodes):  # closed even if closing metrics.csv fails
            self._file.close()

    def _make(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file = self._path.open("w", newline="")
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._writer = csv.DictWriter(self._file, names, lineterminator="\n")
        if names:
            self._writer.writeheader()
        self._writer.writerows(rows)
        self._file.flush()


class _EpisodesCsv:
    """``episodes.csv``, made at the first record that has episodes; pretraining has none."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            if self._file is None and "ended_at" in record:
                self._file = self._path.open("w", newline="")
                csv.writer(self._file, lineterminator="\n").writerow(("step", "return", "length"))
            if self._file is not None:
                csv.writer(self._file, lineterminator="\n").writerows(episodes(record))
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _TensorBoard:
    """Event file in ``tensorboard/`` for each time that the run was begun or resumed.

    It begins with the settings as a text. The calling thread writes it, because tensorboardX's own writer waits forever
    once its thread has died of a full disk.
    """

    def __init__(self, folder: pathlib.Path, step: int, config: Mapping[str, Any]) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import text

        self._event, self._summary = Event, Summary
        (folder / "tensorboard").mkdir(exist_ok=True)
        # File names have the time in seconds; the number keeps two starts within one second apart.
        starts = len(list((folder / "tensorboard").iterdir()))
        self._writer = EventsWriter(str(folder / "tensorboard" / "events"), f".{step:012}.{starts:04}")
        # TensorBoard ignores what an earlier file has after that step.
        self._writer.write_event(
            Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
        )
        summary = text("settings", settings_table(config))
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def write(self, record: Record) -> None:
        for step, numbers in points(record):
            values = [self._summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
            self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """Run of Weights & Biases for each time that the run was begun or resumed, grouped by the folder's name."""

    def __init__(self, folder: pathlib.Path, step: int, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project="polyak",
            group=folder.name,
            name=f"{folder.name} from step {step}",
            dir=str(folder),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(console="off"),  # otherwise wandb captures what the run prints
        )

    def write(self, record: Record) -> None:
        for step, numbers in points(record):
            self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """Run of trackio for each time that the run was begun or resumed, grouped by the folder's name.

    trackio writes a database in a folder of its own, ``TRACKIO_DIR``; it starts no server.
    """

    def __init__(self, folder: pathlib.Path, step: int, config: Mapping[str, Any]) -> None:
        import trackio

        self._trackio = trackio
        with contextlib.redirect_stdout(io.StringIO()):  # trackio prints instructions
            self._run = trackio.init(
                project="polyak",
                group=folder.name,
                name=f"{folder.name} from step {step}",
                config=dict(config),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def write(self, record: Record) -> None:
        for step, numbers in points(record):
            self._run.log(numbers, step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._trackio.finish()  # run.finish() prints again when the process ends


_OPEN: Mapping[str, Callable[[pathlib.Path, int, Mapping[str, Any]], Logger]] = {
    "csv": _Csv,
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "trackio": _Trackio,
}
