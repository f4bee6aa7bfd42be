"""Every benchmark runs, and its figures are put together rightly; nothing here asks how fast anything is."""

import argparse
import json
import math
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BENCHMARKS = ROOT / "experiments" / "benchmarks"
SHARED = {"timing", "bare", "device_sides"}
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*.py") if path.stem not in SHARED)


@pytest.fixture(scope="module")
def timing():
    return argparse.Namespace(**runpy.run_path(str(BENCHMARKS / "timing.py")))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_runs_and_gives_finite_ratios(script, tmp_path):
    out = tmp_path / "results.jsonl"
    command = [sys.executable, str(script), "--quick", "--alone", "--out", str(out)]
    # Compiled as fast as can be, since no figure is looked at.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    ratios = {label: ratio for result in results for label, ratio in result["ratios"].items()}
    assert ratios
    assert all(0 < ratio < math.inf for ratio in ratios.values())
    assert all(label in done.stdout for label in ratios)
    for result in results:
        assert all(f"\n  {name} " in done.stdout for name in result["figures"])
        assert result["command"].startswith(f"python experiments/benchmarks/{script.name} --quick")
        # What the docstring says to type is this script.
        assert f"\n    python experiments/benchmarks/{script.name}\n" in script.read_text()
        products = result.get("matrix_products_in_the_loop", {})
        assert len(set(products.values())) <= 1, "both sides of rule_cost make the same forward passes"


def test_rounds_alternate_and_begin_with_another_side_each(timing):
    seen = []
    sides = {name: lambda name=name: seen.append(name) or float(len(seen)) for name in "abc"}
    assert timing.alternate(sides, 2) == {"a": [4.0, 9.0], "b": [5.0, 7.0], "c": [6.0, 8.0]}
    assert "".join(seen) == "abc" + "abc" + "bca"


def test_a_ratio_is_the_median_over_rounds_of_the_two_figures(timing, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["some/where/replay.py", "--rounds", "3"])
    options = argparse.Namespace(rounds=3, out=tmp_path / "below" / "results.jsonl")
    figures = {"polyak": [2.0, 8.0, 3.0], "peer": [1.0, 2.0, 3.0]}
    for _ in range(2):
        timing.report(options, "case", "s", figures, [("polyak", "peer")], {"polyak / peer": "at most 1"}, note=5)
    first, second = options.out.read_text().splitlines()
    assert first == second
    result = json.loads(first)
    assert result["medians"] == {"polyak": 3.0, "peer": 2.0}
    assert result["ratios"] == {"polyak / peer": 2.0}
    assert result["command"] == "python experiments/benchmarks/replay.py --rounds 3"
    assert (result["benchmark"], result["note"], result["figures"]) == ("replay", 5, figures)
    assert re.search(r"polyak / peer +2  1 to 4 +at most 1\n", capsys.readouterr().out)


def test_the_best_is_that_of_the_measured_ones(timing):
    figures = {"a": [1.0, 9.0, 1.0], "b": [2.0, 2.0, 2.0]}
    assert timing.best(figures, ["a", "b", "missing"]) == ["a"]
    assert timing.best(figures, ["a", "b"], highest=True) == ["b"]
    assert timing.best(figures, ["missing"]) == []


def test_a_missing_peer_is_left_out_with_the_extra_that_has_it(timing, capsys):
    options = argparse.Namespace(alone=False)
    assert not timing.available(options, "a_peer_that_nobody_has")
    assert '".[bench]"' in capsys.readouterr().out
    assert timing.available(options, "json")
    assert not timing.available(argparse.Namespace(alone=True), "json")
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    assert {re.split("[<>=]", requirement)[0] for requirement in extra} == set(timing.PEERS.values())
