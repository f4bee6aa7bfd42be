"""Functions shared by the benchmarks: alternating rounds, medians with their spread, and one JSON line per result."""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import polyak

ROOT = pathlib.Path(__file__).parents[2]
LIBRARIES = ("jax", "jaxlib", "optax", "dm-haiku", "gymnasium", "numpy")
PEERS = {
    "torch": "torch",
    "stable_baselines3": "stable-baselines3",
    "sbx": "sbx-rl",
    "cpprb": "cpprb",
    "flashbax": "flashbax",
}

Figures = dict[str, list[float]]


def arguments(
    description: str, rounds: int, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parse the options of a benchmark: ``--rounds``, ``--quick``, ``--alone``, ``--out``, and those of ``add``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help=f"how often each side is measured (default: {rounds})")
    parser.add_argument("--quick", action="store_true", help="a second's work and one round, to see that it runs")
    parser.add_argument("--alone", action="store_true", help="leave out what the bench extra installs")
    parser.add_argument("--out", type=pathlib.Path, help="JSONL file to append to (default: under docs/results/)")
    if add is not None:
        add(parser)
    found = parser.parse_args()
    found.rounds = found.rounds or (1 if found.quick else rounds)
    if found.out is None and not found.quick:
        found.out = ROOT / "docs" / "results" / "benchmarks" / f"{pathlib.Path(sys.argv[0]).stem}.jsonl"
    return found


def available(options: argparse.Namespace, module: str) -> bool:
    """Whether to measure a peer: requested and installed; prints how to install a missing one."""
    if options.alone or importlib.util.find_spec(module) is not None:
        return not options.alone
    print(f'{module} is not installed and left out; python -m pip install ".[bench]" installs it', flush=True)
    return False


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int, warm_up: bool = True) -> Figures:
    """Measure every side once per round; each round begins with a different side.

    Args:
        sides: Functions that return one figure, by name.
        rounds: Number of rounds.
        warm_up: Whether each side runs once before, with its figure discarded.
    """
    names = list(sides)
    if warm_up:
        for side in sides.values():
            side()
    figures: Figures = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(sides[name]())
    return figures


def microseconds(call: Callable[[], object], calls: int) -> Callable[[], float]:
    """Make a side that measures the microseconds of one call, as the mean over ``calls`` calls."""

    def side() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) / calls * 1e6

    return side


def best(figures: Figures, names: Iterable[str], highest: bool = False) -> list[str]:
    """List with the name of ``names`` that has the lowest (or highest) median; empty if none was measured."""
    medians = {name: statistics.median(figures[name]) for name in names if name in figures}
    return sorted(medians, key=medians.__getitem__, reverse=highest)[:1]


def report(
    options: argparse.Namespace,
    case: str,
    unit: str,
    figures: Figures,
    ratios: Sequence[tuple[str, str]],
    bars: Mapping[str, str],
    **more: object,
) -> None:
    """Print medians, spreads and ratios, and append all of them to ``options.out``.

    Args:
        options: Options from :func:`arguments`.
        case: Description of the measurement.
        unit: Unit of the figures.
        figures: Figures from :func:`alternate`.
        ratios: Pairs of sides; the first is divided by the second, round by round.
        bars: Required values by row label (the name of a side, or ``first / second``).
        more: Additional fields of the measurement.
    """
    rows = dict(figures)
    for over, under in ratios:
        rows[f"{over} / {under}"] = [a / b for a, b in zip(figures[over], figures[under], strict=True)]
    width = max(len(label) for label in rows)
    print(f"\n{case} [{unit}; median, lowest to highest of {options.rounds}]")
    for label, values in rows.items():
        spread = f"{_short(min(values))} to {_short(max(values))}"
        median = _short(statistics.median(values))
        print(f"  {label:<{width}}  {median:>9}  {spread:<22} {bars.get(label, '')}".rstrip())
    for name, value in more.items():
        print(f"  {name.replace('_', ' ')}: {value}")
    line = {
        "benchmark": pathlib.Path(sys.argv[0]).stem,
        "case": case,
        "unit": unit,
        "figures": figures,
        "medians": {name: statistics.median(values) for name, values in figures.items()},
        "ratios": {label: statistics.median(values) for label, values in rows.items() if label not in figures},
        "bars": dict(bars),
        **more,
        **_circumstances(),
    }
    print("  " + ", ".join(f"{name} {version}" for name, version in line["versions"].items()))
    print(f"  {line['machine']}; {line['command']}", flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _circumstances() -> dict[str, object]:
    script = f"experiments/benchmarks/{pathlib.Path(sys.argv[0]).name}"
    libraries = [*LIBRARIES, *(name for module, name in PEERS.items() if importlib.util.find_spec(module))]
    return {
        "command": shlex.join(["python", script, *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {
            "python": platform.python_version(),
            "polyak": polyak.__version__,  # an editable install may have been made of another version
            **{library: importlib.metadata.version(library) for library in libraries},
        },
    }


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
