"""The panel: its numbers, its widths and its curve."""

import io

import numpy as np
import pytest
from rich.console import Console

from panel_records import EVALUATION, PRETRAINING, PROBES, RESOLVED, record_at
from polyak.experiments.reports.panel import CURVE, panel, sparkline
from polyak.experiments.runs.config import RunConfig
from polyak.experiments.runs.pretrain_config import PretrainConfig


def drawn(width, **options):
    file = io.StringIO()
    console = Console(width=width, file=file)
    record = record_at(31_000, 100.0) | EVALUATION
    console.print(panel(RunConfig(evaluate_every=5_000), RESOLVED, record, width=width, **options))
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [78, 80, 100])
def test_the_panel_has_every_number_and_fits(width):
    lines = drawn(width, left="1 min 01 s", speed=333.0, curve=[None, 9.0, 9.0, 10.0, 10.0, 100.0])
    assert {len(line) for line in lines} == {width}
    text = "\n".join(lines)
    for told in (
        "dqn on CartPole-v1, seed 0",
        " 62 %  31,000 / 50,000 steps",
        "return    187.3 (last 20 episodes)",
        " 9.0 ▁",
        "█ 100.0 ",
        "window    201.2 (last 5,000 steps)",
        "length    187 steps (last 20)",
        "time      1 min 40 s",
        "left      1 min 01 s",
        "speed     333 steps/s",
        "evaluated 480.2 ± 3.2 at step 30,000",
        "compile   8.3 s, 12 programs",
        "replay    25 % of 20,000, 580.1 kB",
        "loss      0.0123",
        "epsilon   0.05",
        "episodes  4,321",
        "learner   1,234 steps",
        "target    periodic:50, distance 0.213",
        "average   incremental:cosine(0.004,1000000), distance 1.25e-05",
        " runs/here ",
    ):
        assert text.count(told) == 1, told
    assert "…" not in text


def test_the_columns_do_not_move_with_the_numbers():
    begun = io.StringIO()
    Console(width=78, file=begun).print(panel(RunConfig(evaluate_every=5_000), RESOLVED, {}, width=78))
    before, after = begun.getvalue().splitlines(), drawn(78)
    assert len(before) == len(after)
    for name in ("time", "loss", "learner", "target", " %  ", " / 50,000 steps"):
        place = [
            [(row, line.find(name)) for row, line in enumerate(lines) if name in line] for lines in (before, after)
        ]
        assert place[0] == place[1] != []


def test_a_narrow_panel_has_one_column():
    lines = drawn(50)
    assert {len(line) for line in lines} == {50}
    assert sum("loss      0.0123" in line for line in lines) == 1
    assert sum("time      1 min 40 s" in line for line in lines) == 1


def test_a_panel_of_forty_columns_loses_no_number():
    lines = drawn(38, left="1 min 01 s", curve=[9.0] * 18 + [100.0])
    assert {len(line) for line in lines} == {38}
    assert lines[0].endswith("… ─╮")  # the title alone is cut
    assert "…" not in "\n".join(lines[1:]).replace("incremental:cosine(0.00…", "")
    assert [line.strip("│ ") for line in lines if "distance" in line] == ["distance 0.213", "distance 1.25e-05"]
    assert any("9.0 ▁" in line and "█ 100.0" in line for line in lines)


def test_the_curve_is_drawn_between_its_lowest_and_highest_number():
    values = [None, *np.linspace(-1.5, 1234.5, CURVE - 1)]
    for columns in (16, 26, 36, 48, 54):
        low, blocks, high = sparkline(values, columns).split(" ")
        assert (low, high) == ("-1.5", "1234.5")
        assert blocks[-1] == "█"
        assert columns < 20 or (blocks[0] in "▁▂" and len(f"{low} {blocks} {high}") <= columns)
    assert sparkline([-1_234_567.0, 7.0], 54) == "-1.2e+06 ▁█ 7.0"
    assert sparkline([None], 54) == ""


def test_brackets_are_no_markup():
    file = io.StringIO()
    config = RunConfig(env="[red]Odd-v0")
    Console(width=80, file=file).print(panel(config, {"folder": "runs/[bold]"}, {}, width=80))
    assert "dqn on [red]Odd-v0" in file.getvalue()
    assert "runs/[bold]" in file.getvalue()


@pytest.mark.parametrize("width", [60, 80])
def test_the_panel_of_pretraining_has_its_own_numbers(width):
    resolved = {"targets": {"target": {"rule": "incremental:cosine(0.01,1000)"}}, "training_images": 4000}
    file = io.StringIO()
    drawing = panel(
        PretrainConfig(seed=3),
        resolved,
        PRETRAINING | PROBES,
        width=width,
        left="2 min 00 s",
        curve=[0.4, 0.4, 0.4, 0.8534],
    )
    Console(width=width, file=file).print(drawing)
    text = file.getvalue()
    assert {len(line) for line in text.splitlines()} == {width}
    for told in (
        "byol on mnist5k, seed 3",
        "40 %    400 / 1,000 steps",
        "probe     10 labels 0.853, all 0.950",
        "time      1 min 20 s",
        "left      2 min 00 s",
        "0.400 ▁",
        "█ 0.853 ",
        "speed     5.0 steps/s",
        "images    4,000",
        "loss      0.25",
        "cosine    0.875",
        "spread    0.871",
        "rank      93",
        "target    incremental:cosine(0.01,1000)",
        "distance 1.5",
    ):
        assert told in text, text
