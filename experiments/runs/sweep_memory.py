"""Size of a sweep: lanes, programs, devices and memory, checked and announced before anything is compiled."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import psutil

from .sweep_grid import Grid, label_of
from .sweep_lanes import Lanes, bytes_of


def counts(grid: Grid) -> str:
    """Numbers of lanes, of values of each axis and of seeds, as a text."""
    sizes = [*(f"{len(values)} x {name}" for name, values in grid.axes.items())]
    seeds = len({lane.config.seed for lane in grid.lanes})
    return f"{len(grid.lanes)} lane{'s' if len(grid.lanes) > 1 else ''}: {', '.join([*sizes, f'{seeds} x seed'])}"


def available_bytes() -> int:
    """Number of bytes that are available on all devices."""
    statistics: list[Any] = [device.memory_stats() for device in jax.local_devices()]
    if all(one is not None and "bytes_limit" in one for one in statistics):
        return sum(one["bytes_limit"] - one["bytes_in_use"] for one in statistics)
    return int(psutil.virtual_memory().available)


def needed_bytes(lanes: Lanes) -> tuple[int, int]:
    """Number of bytes of one lane and of all lanes of a program; ``map`` copies the lane of each device that runs."""
    each, _ = bytes_of(lanes)
    program = lanes.program
    return each, each * (len(program.configs) + (len(program.devices) if program.lanes == "map" else 0))


def check_memory(lanes: Lanes, available: int) -> None:
    """Check that the lanes of a program fit into memory.

    Raises:
        ValueError: if they do not; the message has the number of lanes and the replay_capacity that fit.
    """
    each, total = needed_bytes(lanes)
    if total <= available:
        return
    capacity, count = lanes.parts.config.loop.replay.replay_capacity, len(lanes.lanes)
    replay = bytes_of(lanes)[1]
    copies = total // each
    fits = max(available // each - (copies - len(lanes.program.configs)), 0)
    smaller = int(capacity * (available / copies - (each - replay)) / replay)
    ways = [f"fewer lanes ({fits} fit)"] if fits else []
    ways += [f"--replay-capacity {smaller}"] if smaller > lanes.parts.config.loop.draw.batch_size else []
    raise ValueError(
        f"replay_capacity: got {capacity} for {count} lanes, which need {_size(total)} in all, {_size(each)} per lane; "
        f"{_size(available)} are available. Try {' or '.join(ways) or 'a smaller network'}."
    )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.2f} MiB"


def announcement(grid: Grid, programs: Sequence[Lanes]) -> Iterator[str]:
    """Lines that are printed before the first program is compiled."""
    yield f"sweep     {counts(grid)}"
    first = programs[0].program
    how = "one after the other" if first.lanes == "map" else "as one batch"
    device = first.devices[0].platform.upper()
    count = max(len(one.program.devices) for one in programs)
    labels = [label_of(one.lanes, grid.axes) or f"{len(one.lanes)} lanes" for one in programs]
    several = f", compiled and run one after the other: {'; '.join(labels)}" if len(programs) > 1 else ""
    plural = "s" if len(programs) > 1 else ""
    yield f"programs  {len(programs)} program{plural}{several}"
    yield f"devices   {count} {device} device{'s' if count > 1 else ''}, the lanes of each {how}"
    each = max(needed_bytes(one)[0] for one in programs)
    total = max(needed_bytes(one)[1] for one in programs)
    yield (f"memory    {_size(each)} per lane, {_size(total)} in all; {_size(available_bytes())} are available")
