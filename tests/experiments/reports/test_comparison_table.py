"""A comparison as a table, and from the command line."""

import csv
import io
import itertools
import math
import re

import pytest

from polyak.experiments import cli
from polyak.experiments.reports.comparison import compare
from polyak.experiments.reports.comparison_table import comparison_table
from written_runs import write_run, write_two_groups


@pytest.fixture
def two_groups(tmp_path):
    return write_two_groups(tmp_path / "runs")


def test_csv_has_every_number(two_groups):
    comparison = compare(two_groups, window=2, threshold=5.0)
    none, periodic = csv.DictReader(io.StringIO(comparison_table(comparison, "csv")))
    assert (periodic["group"], periodic["seeds"]) == ("target=periodic:10", "3")
    found = [float(periodic[f"greedy_{part}"]) for part in ("iqm", "low", "high")]
    assert found == [60.0, 40.0, 80.0]
    assert (periodic["threshold"], periodic["steps_to_threshold"], periodic["reached"]) == ("5.0", "80.0", "2")
    assert (none["steps_to_threshold"], none["reached"]) == ("", "1")
    asked_nothing = next(csv.DictReader(io.StringIO(comparison_table(compare(two_groups), "csv"))))
    assert [asked_nothing[name] for name in ("threshold", "steps_to_threshold", "reached")] == ["", "", ""]


def test_steps_by_the_evaluations_within_the_runs(tmp_path):
    write_run(tmp_path / "0", [1.0] * 4, greedy=9.0, evaluations=(3.0, 5.0), target="none")
    write_run(tmp_path / "1", [1.0] * 4, greedy=9.0, evaluations=(6.0, 8.0), seed=1, target="none")
    write_run(tmp_path / "2", [1.0] * 4, greedy=9.0, seed=2, target="none")  # never evaluated before its end
    write_run(tmp_path / "3", [1.0] * 4, greedy=9.0)
    comparison = compare(tmp_path, window=1, threshold=5.0)
    none, periodic = comparison.rows
    assert (none.evaluated, none.greedy_steps_to_threshold, none.greedy_reached) == (2, (40 + 20) / 2, 2)
    assert (periodic.evaluated, periodic.greedy_reached) == (0, 0)
    text = comparison_table(comparison, "markdown")
    assert "| steps to 5 | greedy steps to 5 |" in text
    assert "| - (0/3) | 30 (2/2) |" in text
    assert "| - (0/1) | - |" in text
    assert "the first evaluation within a run whose mean reached it" in text
    row = next(csv.DictReader(io.StringIO(comparison_table(comparison, "csv"))))
    assert (row["evaluated"], row["greedy_steps_to_threshold"], row["greedy_reached"]) == ("2", "30.0", "2")
    missed = compare(tmp_path, window=1, threshold=7.0).rows[0]
    assert (missed.greedy_steps_to_threshold, missed.greedy_reached) == (math.inf, 1)


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_text_and_markdown_say_the_same(two_groups, form):
    lines = comparison_table(compare(two_groups, window=2, threshold=5.0), form).splitlines()
    if form == "markdown":
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:4])]
        assert lines[1].count("---") == 6
    else:
        starts = [lines[0].index(name) for name in ("group", "environment", "seeds", "training", "greedy", "steps")]
        bounds = [slice(*pair) for pair in itertools.pairwise([*starts, None])]
        rows = [[line[bound].strip() for bound in bounds] for line in lines[:3]]
    assert rows == [
        ["group", "environment", "seeds", "training return", "greedy return", "steps to 5"],
        ["target=none", "CartPole-v1", "2", "7.000 [2.000, 12.000]", "70.0 [20.0, 120.0]", "- (1/2)"],
        ["target=periodic:10", "CartPole-v1", "3", "6.000 [4.000, 8.000]", "60.0 [40.0, 80.0]", "80 (2/3)"],
    ]
    assert any("mean of the last 2 training episodes" in line for line in lines)


def test_what_is_not_defined_is_a_dash(tmp_path):
    write_run(tmp_path / "one", [3.0], greedy=30.0)
    write_run(tmp_path / "none", [3.0], target="none")
    text = comparison_table(compare(tmp_path, threshold=1), "markdown")
    assert "| target=periodic:50 | CartPole-v1 | 1 | 3.000 [-] | 30.0 [-] | - (0/1) |" in text
    assert "| target=none | CartPole-v1 | 0 (+ 1 unfinished) | - | - | - |" in text


def test_from_the_command_line(two_groups, tmp_path, capsys):
    options = ["--threshold", "5", "--window", "2", "--figure", str(tmp_path / "figure.svg")]
    for form in ("text", "markdown", "csv"):
        assert cli.run(["compare", str(two_groups), *options, "--format", form]) == 0
        said = capsys.readouterr()
        assert said.out == comparison_table(compare(two_groups, threshold=5.0, window=2), form)
        assert said.err == f"figure    {tmp_path / 'figure.svg'}\n"
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    write_run(two_groups / "z", [1.0], seed=9)
    assert cli.run(["compare", str(two_groups)]) == 0
    assert capsys.readouterr().err.startswith(f"polyak: {two_groups / 'z'} is unfinished")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["compare"], "runs: got none; expected folders of runs"),
        (["compare", "nowhere"], r"nowhere: no run found \(no config.json\)"),
        (["compare", "nowhere", "--window", "0"], "window: got 0; expected an integer >= 1"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(command, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(command) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("polyak: ")
    assert len(said.err.splitlines()) == 1
    assert re.search(message, said.err)
