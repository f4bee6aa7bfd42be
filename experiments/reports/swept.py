"""Sweeps from Python: their lanes, and their comparison."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...tables import TableFormat
from ..runs.finished import Run, load_run
from ..runs.given import check_objects
from ..runs.sweep import check_no_steps, resume_sweep
from ..runs.sweep_drive import LaneEnds
from ..runs.sweep_fields import axes_of
from ..runs.sweep_saving import SavedSweep, read_sweep
from .comparison import Comparison, compare
from .sweep_progress import SweepProgress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, repr=False)
class Sweep:
    """Sweep that has ended. A notebook shows it as its table.

    Attributes:
        folder: Folder of the sweep.
        axes: Name of each axis to the texts of its values.
        ends: Name of each lane, which is the path of its folder, to its evaluation, or to the reason if it has diverged
            or failed.
        given: Objects passed from Python, by their text in the configs.
    """

    folder: pathlib.Path
    axes: Mapping[str, tuple[str, ...]]
    ends: LaneEnds
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def lanes(self) -> list[Run]:
        """Runs of the lanes that have ended, in the order of the grid."""
        return [self.lane(name) for name, end in self.ends.items() if isinstance(end, Mapping)]

    def lane(self, name: str) -> Run:
        """Run of a lane.

        Raises:
            ValueError: if there is no such lane, or it has diverged or failed.
        """
        if name not in self.ends:
            raise ValueError(f"lane: got {name!r}; expected one of {', '.join(self.ends)}.")
        if not isinstance(end := self.ends[name], Mapping):
            raise ValueError(f"lane: got {name!r}, which has no parameters: {end}")
        return load_run(self.folder / name, self.given)

    @functools.cached_property
    def comparison(self) -> Comparison:
        """Comparison of the settings over their seeds, as of ``polyak.compare(sweep.folder)``."""
        return compare(self.folder)

    def table(self, form: TableFormat = "text", *, caption: bool = True) -> str:
        """Table of the settings; as ``polyak compare`` prints it."""
        return self.comparison.table(form, caption=caption)

    def figure(self, *, size: tuple[float, float] | None = None) -> "Figure":
        """Figure of the learning curves; as ``polyak compare --figure`` draws it."""
        return self.comparison.figure(size=size)

    def __repr__(self) -> str:
        ended = sum(isinstance(end, Mapping) for end in self.ends.values())
        axes = {name: list(values) for name, values in self.axes.items()}
        return f"Sweep(lanes={len(self.ends)}, ended={ended}, axes={axes}, folder={str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return self.comparison._repr_html_()


def finished(saved: SavedSweep, ends: LaneEnds, given: Mapping[str, Any]) -> Sweep:
    """Sweep in a folder, from the ends of its lanes.

    Raises:
        KeyboardInterrupt: if a lane was interrupted.
    """
    if None in ends.values():
        raise KeyboardInterrupt(
            f"the sweep was interrupted and saved; continue it with polyak.resume({str(saved.folder)!r})"
        )
    return Sweep(saved.folder, saved.grid.axes, ends, given)


def resumed(
    folder: pathlib.Path,
    steps: int | None,
    callbacks: Sequence[Callable[..., Any]],
    quiet: bool,
    objects: Mapping[str, Any],
) -> Sweep:
    """Continue the sweep in a folder; the arguments are those of ``polyak.resume``.

    Raises:
        ValueError: if it cannot be continued, or ``steps`` or ``callbacks`` are given.
        KeyboardInterrupt: if a lane was interrupted.
    """
    check_no_steps(steps)
    if callbacks:
        raise ValueError(f"callbacks: got {len(callbacks)} for a sweep, which calls none; expected (). Leave them out.")
    check_objects(objects)
    saved, given = read_sweep(folder), axes_of(objects)[2]
    with SweepProgress(saved.grid, quiet=quiet) as progress:
        return finished(saved, resume_sweep(folder, progress.show, progress.say, given), given)
