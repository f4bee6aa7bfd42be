"""Loggers: copies of the records as CSV, TensorBoard or Weights & Biases.

``metrics.jsonl`` has all records. A logger that fails is reported once and left out; the run continues.
"""

import contextlib
import csv
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from .records import read_jsonl

Record = Mapping[str, Any]


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
    if "wandb" in names:
        try:
            from wandb import init  # noqa: F401  # a folder "wandb" beside the user passes for the module, but has none
        except Exception as error:
            raise ValueError(
                f"loggers: 'wandb' needs the package wandb, which cannot be imported ({error}). Install it with "
                "`pip install wandb`, or leave it out."
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
        except Exception as error:  # of any kind: training continues without the logger
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


def points(record: Record) -> Iterator[tuple[int, dict[str, float]]]:
    """Numbers of a record by environment step: each episode where it ended, then all others at the record's step.

    >>> list(points({"step": 9, "loss": None, "q": 0.5, "ended_at": [7], "returns": [3.0], "lengths": [4]}))
    [(7, {'episode/return': 3.0, 'episode/length': 4}), (9, {'q': 0.5})]
    """
    episodes = (record.get(name, []) for name in ("ended_at", "returns", "lengths"))
    for step, episode_return, length in zip(*episodes, strict=True):
        yield step, _known({"episode/return": episode_return, "episode/length": length})
    numbers = scalars(record)
    yield numbers.pop("step"), _known(numbers)


def _known(numbers: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if value is not None}


class _Csv:
    """``metrics.csv`` with a column for each number, in the order of first records; written from the records so far."""

    def __init__(self, folder: pathlib.Path, step: int, config: Mapping[str, Any]) -> None:
        del step, config
        self._path = folder / "metrics.csv"
        self._make([scalars(record) for record in read_jsonl(folder / "metrics.jsonl")])

    def write(self, record: Record) -> None:
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
        self._file.close()

    def _make(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._file = self._path.open("w", newline="")
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._writer = csv.DictWriter(self._file, names, lineterminator="\n")
        if names:
            self._writer.writeheader()
        self._writer.writerows(rows)
        self._file.flush()


class _TensorBoard:
    """Event file in ``tensorboard/`` for each time that the run was begun or resumed.

    Written by the calling thread: the writer that tensorboardX puts in a thread of its own would wait for ever
    once that thread has died of a full disk.
    """

    def __init__(self, folder: pathlib.Path, step: int, config: Mapping[str, Any]) -> None:
        del config
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        (folder / "tensorboard").mkdir(exist_ok=True)
        # Its names tell seconds; the number keeps a second start within one from taking the first one's file.
        starts = len(list((folder / "tensorboard").iterdir()))
        self._writer = EventsWriter(str(folder / "tensorboard" / "events"), f".{step:012}.{starts:04}")
        # Tells TensorBoard to pass over what an earlier file has after that step.
        self._writer.write_event(
            Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
        )
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
            settings=wandb.Settings(console="off"),  # it would stand between the run and its terminal
        )

    def write(self, record: Record) -> None:
        for step, numbers in points(record):
            self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


_OPEN: Mapping[str, Callable[[pathlib.Path, int, Mapping[str, Any]], Logger]] = {
    "csv": _Csv,
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}
