"""A comparison as a table, and from the command line."""

import csv
import io
import itertools
import math
import re
import struct
import typing

import pytest

from polyak.experiments import cli, commands
from polyak.experiments.reports.comparison import compare
from polyak.experiments.reports.comparison_table import comparison_table, improvement_table
from polyak.experiments.reports.figures import curve_caption
from polyak.experiments.reports.statistics import STATISTICS
from written_runs import write_run, write_two_groups

TRAINING_BOUNDS = ["training_iqm_low", "training_iqm_high"]


@pytest.fixture
def two_groups(tmp_path):
    return write_two_groups(tmp_path / "runs")


def test_csv_has_every_number(two_groups):
    comparison = compare(two_groups, window=2, threshold=5.0)
    none, periodic = csv.DictReader(io.StringIO(comparison_table(comparison, "csv")))
    assert (periodic["group"], periodic["seeds"]) == ("target=periodic:10", "3")
    found = {f"greedy_{statistic}{part}" for statistic in ("iqm", "mean", "median") for part in ("", "_low", "_high")}
    assert {name: float(periodic[name]) for name in sorted(found)} == {
        name: 40.0 if name.endswith("low") else 80.0 if name.endswith("high") else 60.0 for name in found
    }
    first = ["group", "environment", "seeds", "unfinished", "diverged", "training_iqm", *TRAINING_BOUNDS]
    assert list(periodic)[: len(first)] == first
    assert len(periodic) == 5 + 2 * 3 * 3 + 6
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
    assert "the first evaluation within a run whose mean reached it (seeds that reached it / seeds with eva" in text
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


def test_statistics_have_a_line_each_beside_one_another(two_groups):
    text = comparison_table(
        compare(two_groups, window=2, threshold=5.0), "markdown", statistics=["mean", "median", "mean"]
    )
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert lines[0] == ["group", "environment", "seeds", "statistic", "training return", "greedy return", "steps to 5"]
    assert lines[4] == [
        "target=periodic:10",
        "CartPole-v1",
        "3",
        "mean",
        "6.000 [4.000, 8.000]",
        "60.0 [40.0, 80.0]",
        "80 (2/3)",
    ]
    assert lines[5] == [
        "target=periodic:10",
        "CartPole-v1",
        "3",
        "median",
        "6.000 [4.000, 8.000]",
        "60.0 [40.0, 80.0]",
        "",
    ]
    assert text.splitlines()[7].startswith("Mean and median over seeds [95 % stratified bootstrap interval")


def test_the_table_fits_100_columns_with_all_statistics(tmp_path):
    for number, target in enumerate(("none", "none", "periodic:100", "periodic:100")):
        write_run(
            tmp_path / str(number), [-200.0], greedy=-100.0 - number, seed=number, target=target, env="Acrobot-v1"
        )
    text = compare(tmp_path, threshold=1.0).table(statistics=("iqm", "mean", "median"))
    rows, captions = text.split("\n\n")
    assert len(rows.splitlines()) == 1 + 2 * 3
    assert max(len(line.partition("  - (0/2)")[0]) for line in rows.splitlines()[1:]) <= 100
    assert max(map(len, captions.splitlines())) <= 100


def test_the_caption_can_be_left_out(two_groups):
    comparison = compare(two_groups)
    for with_caption, without in (
        (comparison.table(), comparison.table(caption=False)),
        (comparison.improvement_table(), comparison.improvement_table(caption=False)),
    ):
        assert with_caption.startswith(f"{without}\n")
        assert "bootstrap" in with_caption
        assert "bootstrap" not in without


def test_statistics_that_there_are_not(two_groups):
    comparison = compare(two_groups)
    with pytest.raises(ValueError, match="statistics: got none; expected one or more of iqm, mean, median"):
        comparison_table(comparison, statistics=())
    with pytest.raises(ValueError, match="statistics: got 'mode'; expected one of iqm, mean, median"):
        comparison_table(comparison, "csv", statistics=["mode"])
    assert typing.get_args(commands.Statistic) == STATISTICS


def test_the_probability_of_improvement(two_groups):
    comparison = compare(two_groups, window=2)
    lines = improvement_table(comparison).splitlines()
    assert re.split(r"  +", lines[0]) == ["group X", "group Y", "environment", "training P(X > Y)", "greedy P(X > Y)"]
    [row] = csv.DictReader(io.StringIO(improvement_table(comparison, "csv")))
    # 2 and 12 against 4, 6, 8: none and all of three.
    assert [row[name] for name in ("group", "over", "environment")] == [
        "target=none",
        "target=periodic:10",
        "CartPole-v1",
    ]
    names = [f"{measure}_{part}" for measure in ("training", "greedy") for part in ("probability", "low", "high")]
    assert [float(row[name]) for name in names] == [0.5, 0.0, 1.0] * 2
    assert lines[1].split() == ["target=none", "target=periodic:10", "CartPole-v1", *["0.50", "[0.00,", "1.00]"] * 2]
    assert lines[3].startswith("P(X > Y): probability that a run of X has a higher return than a run of Y")
    with pytest.raises(ValueError, match="improvement: got one group in each environment; expected two or more"):
        compare(two_groups / "none-0", two_groups / "none-1").improvement_table()


def test_from_the_command_line(two_groups, tmp_path, capsys):
    options = ["--threshold", "5", "--window", "2", "--figure", str(tmp_path / "figure.svg")]
    comparison = compare(two_groups, threshold=5.0, window=2)
    for form in ("text", "markdown", "csv"):
        assert cli.run(["compare", str(two_groups), *options, "--format", form]) == 0
        said = capsys.readouterr()
        assert said.out == comparison_table(comparison, form)
        assert said.err.splitlines() == [f"figure    {tmp_path / 'figure.svg'}", *curve_caption(comparison)]
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    write_run(two_groups / "z", [1.0], seed=9)
    assert cli.run(["compare", str(two_groups)]) == 0
    assert capsys.readouterr().err.startswith(f"polyak: {two_groups / 'z'} is unfinished")


def test_every_option_from_the_command_line(two_groups, tmp_path, capsys):
    figures = ["--figure", str(tmp_path / "curves.png"), "--profile", str(tmp_path / "profile.png"), "--size", "4", "3"]
    labels = ["--label", "none=no target", "target=periodic:10=hard", "--group-by", "target"]
    assert (
        cli.run(["compare", str(two_groups), *labels, "--statistics", "iqm", "median", "--no-caption", *figures]) == 0
    )
    comparison = compare(two_groups, group_by=["target"], labels={"none": "no target", "periodic:10": "hard"})
    said = capsys.readouterr()
    assert said.out == comparison.table(statistics=("iqm", "median"), caption=False)
    assert said.err == f"figure    {tmp_path / 'curves.png'}\nfigure    {tmp_path / 'profile.png'}\n"
    for name in ("curves.png", "profile.png"):
        header = (tmp_path / name).read_bytes()[:24]
        assert struct.unpack(">II", header[16:24]) == (1200, 900)  # 300 dpi
    assert cli.run(["compare", str(two_groups), *labels, "--improvement"]) == 0
    assert capsys.readouterr().out == comparison.improvement_table()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["compare"], "runs: got none; expected folders of runs"),
        (["compare", "nowhere"], r"nowhere: no run found \(no config.json\)"),
        (["compare", "nowhere", "--window", "0"], "window: got 0; expected an integer >= 1"),
        (["compare", "nowhere", "--label", "hard"], "label: got 'hard'; expected GROUP=NAME"),
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
