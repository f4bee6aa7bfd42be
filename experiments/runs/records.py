"""Records of a run: one JSON object per line; figures and tables are made from them."""

import json
import math
import os
import pathlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

GREEDY = "greedy_return"  # field with the mean return of an evaluation within the run
NEWEST = 20  # episodes of return_mean_20 and length_mean_20
WINDOW = 10  # log intervals of return_mean_window; a part of the run's steps would differ once a run is extended
# Fields that may differ between two runs of one seed.
TIMES = ("seconds", "steps_per_second", "compile_seconds", "compilations")


class JsonlWriter:
    """Writer that appends records to a file, each flushed before the next."""

    def __init__(self, path: pathlib.Path, at: int = 0) -> None:
        """Open ``path``, truncated to ``at`` bytes: a resumed run writes the later records again.

        Raises:
            ValueError: if the file is shorter than that.
        """
        size = path.stat().st_size if path.exists() else 0
        if size < at:
            raise ValueError(f"{path}: got {size} bytes; the checkpoint was made after {at}. Put the file back.")
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(at)
        self._file.seek(at)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record of :func:`plain`.

        Raises:
            OSError: if the disk is full or gone.
        """
        try:
            self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OSError(f"{self._file.name}: could not be written: {error.strerror}") from error

    def position(self) -> int:
        """Number of bytes written; they are on the disk when this returns."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> "JsonlWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:  # write has raised it already
            if error is None:
                raise


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record to JSON's types: arrays (on a device too) to numbers and lists, not finite numbers to None.

    >>> import numpy as np
    >>> plain({"step": 5, "loss": float("nan"), "q": np.float32(0.5), "returns": [1.0, float("inf")]})
    {'step': 5, 'loss': None, 'q': 0.5, 'returns': [1.0, None]}
    """

    def converted(value: Any) -> Any:
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, list):
            return [converted(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: converted(value) for name, value in record.items()}


def read_jsonl(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Records of a file, oldest first; a last line that a killed run left incomplete is ignored.

    Raises:
        ValueError: if a line before the last is not JSON.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: not JSON ({error}). Was the file changed by hand?") from None


class EpisodeMeans:
    """Means over the newest training episodes: fields of a record.

    Example:
        >>> means = EpisodeMeans(window=1000)
        >>> means.of({"step": 500, "returns": [10.0], "lengths": [8], "ended_at": [400]})
        {'return_mean_20': 10.0, 'length_mean_20': 8.0, 'return_mean_window': 10.0}
        >>> means.of({"step": 1500, "returns": [20.0], "lengths": [10], "ended_at": [1200]})
        {'return_mean_20': 15.0, 'length_mean_20': 9.0, 'return_mean_window': 20.0}
    """

    def __init__(self, window: int, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """Start with the episodes of earlier records.

        Args:
            window: Number of environment steps before a record; ``return_mean_window`` is the mean over the episodes
                that ended in them.
            records: Records of the run so far, oldest first, so that a resumed run has the means of one that never
                stopped.
        """
        self._window = window
        self._newest: deque[tuple[float, int]] = deque(maxlen=NEWEST)  # return and length
        self._in_window: deque[tuple[int, float]] = deque()  # step and return
        for record in records:
            self._add(record)

    def of(self, record: Mapping[str, Any]) -> dict[str, float | None]:
        """Add the episodes of a record, and return its fields; None where no episode has ended."""
        self._add(record)
        return {
            "return_mean_20": _mean([episode_return for episode_return, _ in self._newest]),
            "length_mean_20": _mean([length for _, length in self._newest]),
            "return_mean_window": _mean([episode_return for _, episode_return in self._in_window]),
        }

    def _add(self, record: Mapping[str, Any]) -> None:
        for step, episode_return, length in episodes(record):
            number = math.nan if episode_return is None else episode_return  # JSON has null where it was not finite
            self._newest.append((number, length))
            self._in_window.append((step, number))
        while self._in_window and self._in_window[0][0] <= record["step"] - self._window:
            self._in_window.popleft()


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def episodes(record: Mapping[str, Any]) -> Iterator[tuple[int, float | None, int]]:
    """Episodes of a record: the environment step at which each ended, its return and its length.

    >>> list(episodes({"step": 9, "ended_at": [7], "returns": [3.0], "lengths": [4]})), list(episodes({"step": 9}))
    ([(7, 3.0, 4)], [])
    """
    return zip(*(record.get(name, ()) for name in ("ended_at", "returns", "lengths")), strict=True)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean ``[E]`` float64, the mean of each value and up to ``window - 1`` values before it.

    >>> running_mean(np.array([1.0, 3.0, 8.0]), window=2)
    array([1. , 2. , 5.5])
    """
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def columns(records: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Name to array over the records, float64 with NaN where nothing was measured; lists are joined.

    >>> found = columns([{"step": 1, "loss": None, "returns": []}, {"step": 2, "loss": 0.5, "returns": [3.0, 4.0]}])
    >>> found["step"].tolist(), found["loss"].tolist(), found["returns"].tolist()
    ([1.0, 2.0], [nan, 0.5], [3.0, 4.0])
    """
    records = list(records)
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if any(isinstance(value, list) for value in values):
            found[name] = np.array([item for value in values for item in value or []], np.float64)
        else:
            found[name] = np.array([np.nan if value is None else value for value in values], np.float64)
    return found
