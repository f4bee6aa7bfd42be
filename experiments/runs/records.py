"""Records of a run: one JSON object a line, from which figures and tables are made."""

import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

GREEDY = "greedy_return"  # the field of the mean return of an evaluation within the run
# The fields that may differ between two runs of one seed.
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
        except OSError:  # what write could not write; it has said so
            if error is None:
                raise


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """Record in JSON's own types: arrays (on a device too) as numbers and lists, None for what is not finite.

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
    """Records of a file, oldest first; a last line that a killed run left half-written is passed over.

    Raises:
        ValueError: if a line before the last is no JSON.
    """
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: no JSON ({error}); the file was changed by hand?") from None


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean ``[E]`` float64, the mean of each value and of the up to ``window - 1`` before it.

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
