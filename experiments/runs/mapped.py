"""Checkpoints of replay observations in a memory-mapped file: their content, and restoring the file from them."""

import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

from ...replay._rows import ReplayState
from ...replay.host_writes import is_written, next_rows, rows_ahead

ROWS, OBSERVATIONS, CHECKSUMS = "replay rows", "replay observations", "replay checksums"


class MappedRows:
    """Rows of a memory-mapped replay, as the checkpoints of a run store them.

    The file changes after a checkpoint. Therefore a checkpoint stores the rows that may be overwritten while it is
    kept, and a checksum of every row, which reveals a damaged or replaced file.

    Args:
        steps: Number of steps of each environment that may follow while a checkpoint is kept.
    """

    def __init__(self, steps: int) -> None:
        self._ahead = 2 * steps + 2  # a step that ends an episode takes two rows
        self._checksums: np.ndarray | None = None
        self._changed = np.zeros(0, np.int64)

    def snapshot(self, replay: ReplayState) -> dict[str, np.ndarray]:
        """Return the arrays of a checkpoint: the rows that may be overwritten, their observations, and checksums."""
        observation = replay.observation
        if isinstance(observation.base, np.memmap):
            observation.base.flush()
        if self._checksums is None:
            self._checksums, self._changed = np.zeros(len(observation), np.uint32), np.arange(len(observation))
        changed = self._changed[is_written(replay, self._changed)]
        self._checksums[changed] = _checksums(observation, changed)
        self._changed = rows_ahead(replay, self._ahead)  # until the next checkpoint
        rows = next_rows(replay, self._ahead)
        return {ROWS: rows, OBSERVATIONS: observation[rows], CHECKSUMS: self._checksums.copy()}


def bring_back(observation: np.ndarray, snapshot: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Restore the observations in a file to a checkpoint, in place.

    Args:
        observation: Observations of the replay, ``[rows, ...]``, mapped into memory.
        snapshot: Arrays of :meth:`MappedRows.snapshot`.
        path: Path of the file, for the error.

    Raises:
        ValueError: if the file was changed by anything other than the run.
    """
    observation[snapshot[ROWS]] = snapshot[OBSERVATIONS]
    [written] = np.nonzero(snapshot[CHECKSUMS])
    wrong = int(np.sum(_checksums(observation, written) != snapshot[CHECKSUMS][written]))
    if wrong:
        raise ValueError(
            f"{path}: {wrong} of {len(written)} rows are not those of the checkpoint; the file was damaged or "
            "replaced. Put the run's own file there, or start a new run from its parameters (--initial)."
        )


def _checksums(observation: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Checksum of each row, ``[R]`` uint32, never 0; 0 marks a row that was not written."""
    found = (zlib.crc32(observation[row].tobytes()) for row in rows.tolist())
    return np.fromiter((checksum or 1 for checksum in found), np.uint32, len(rows))
