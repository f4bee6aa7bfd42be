"""Runs compared: the numbers of the table and of the curves by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.experiments.reports.comparison import compare, steps_to, training_returns
from polyak.experiments.reports.comparison_table import comparison_table
from polyak.experiments.reports.statistics import estimate
from written_runs import write_run, write_two_groups


def numbers(found):
    return tuple(float(number) for number in found)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.integers(1, 5), st.integers(-5, 5))
@settings(deadline=None)
def test_training_returns_and_steps_to_against_loops(returns, window, threshold):
    ended_at = np.cumsum([1 + abs(value) for value in returns])
    found = training_returns(np.arange(ended_at[-1] + 2), np.array(returns, np.float64), ended_at, window)
    for step, value in enumerate(found):
        so_far = [one for one, end in zip(returns, ended_at, strict=True) if end <= step]
        assert math.isnan(value) if not so_far else value == pytest.approx(np.mean(so_far[-window:]))
    reached = math.inf
    for episode in reversed(range(window, len(returns) + 1)):
        if sum(returns[episode - window : episode]) >= threshold * window:
            reached = ended_at[episode - 1]
    assert steps_to(threshold, np.array(returns, np.float64), ended_at, window) == reached


@pytest.fixture
def two_groups(tmp_path):
    return write_two_groups(tmp_path / "runs")


class TestCompare:
    def test_numbers_by_hand(self, two_groups):
        comparison = compare(two_groups, window=2, threshold=5.0)
        none, periodic = comparison.rows
        assert (none.group, periodic.group) == ("target=none", "target=periodic:10")
        assert (none.environment, none.seeds, none.unfinished) == ("CartPole-v1", 2, 0)
        assert numbers(periodic.training.iqm) == (
            6.0,
            4.0,
            8.0,
        )  # with three seeds every resample of one seed alone counts
        assert numbers(periodic.greedy.iqm) == (60.0, 40.0, 80.0)
        assert (float(none.training.mean.value), float(periodic.greedy.median.value)) == (7.0, 60.0)
        assert {
            group: {e: one.greedy.tolist() for e, one in strata.items()} for group, strata in comparison.scores.items()
        } == {
            "target=none": {"CartPole-v1": [20.0, 120.0]},
            "target=periodic:10": {"CartPole-v1": [40.0, 60.0, 80.0]},
        }
        # 4 never reaches 5; 6 does with two episodes in the window, 60 + 10; 8 reaches it too, 70 + 10.
        assert (periodic.steps_to_threshold, periodic.reached) == (80.0, 2)
        assert (none.steps_to_threshold, none.reached) == (math.inf, 1)
        assert comparison.notes == []

    def test_curves_by_hand(self, two_groups):
        none, periodic = compare(two_groups, window=2).curves
        assert (none.seeds, periodic.seeds) == (2, 3)
        assert (periodic.steps[0], periodic.steps[-1]) == (10.0, 120.0)
        at = np.searchsorted(periodic.steps, 72)  # the windows hold (4, 4), (6, 6), (0, 8)
        assert [float(part[at]) for part in periodic.training] == [(4 + 6 + 4) / 3, 4.0, 6.0]
        assert (periodic.training.low <= periodic.training.value).all()

    def test_a_curve_begins_where_every_run_has_an_episode(self, tmp_path):
        write_run(tmp_path / "short", [1.0] * 6, length=10)
        write_run(tmp_path / "long", [3.0] * 3, length=25, seed=1)
        [curve] = compare(tmp_path).curves
        assert (curve.steps[0], curve.steps[-1]) == (25.0, 60.0)
        assert curve.training.value.tolist() == [2.0] * len(curve.steps)

    def test_an_unfinished_run_has_a_curve_and_no_number(self, two_groups):
        unfinished = write_run(two_groups / "z", [100.0, 100.0], seed=9, target="none")
        comparison = compare(two_groups, window=2)
        none = comparison.rows[0]
        assert (none.seeds, none.unfinished, float(none.training.iqm.value)) == (2, 1, 7.0)
        assert (comparison.curves[0].seeds, comparison.curves[0].steps[-1]) == (3, 20.0)
        [note] = comparison.notes
        assert note.startswith(f"{unfinished} is unfinished, at step 20 of 600")
        assert "2 (+ 1 unfinished)" in comparison_table(comparison)

    def test_runs_without_a_record_or_with_few_episodes_are_said_so(self, tmp_path):
        write_run(tmp_path / "begun", [], seed=0)
        write_run(tmp_path / "few", [9.0] * 3, greedy=9.0, seed=1)
        comparison = compare(tmp_path, threshold=5)
        assert [curve.seeds for curve in comparison.curves] == [1]
        assert [note.partition(" ")[2] for note in comparison.notes[:2]] == [
            "is unfinished, at step 0 of 600: it is in the curves, but not in the table.",
            "has no curve: no training episode has ended by step 0.",
        ]
        assert "1 of 2 runs have fewer than 100 training episodes" in comparison.notes[2]
        assert comparison.rows[0].reached == 0

    def test_over_all_environments_returns_are_scaled_and_seeds_drawn_within_each(self, tmp_path):
        levels = {
            ("none", "CartPole-v1"): [0.0, 10.0],
            ("none", "Acrobot-v1"): [-500.0, -400.0],
            ("periodic:10", "CartPole-v1"): [5.0, 20.0],
            ("periodic:10", "Acrobot-v1"): [-300.0, -300.0],
        }
        for (target, env), returns in levels.items():
            for seed, level in enumerate(returns):
                folder = tmp_path / f"{target.replace(':', '-')}-{env}-{seed}"
                write_run(folder, [level], greedy=level, seed=seed, env=env, target=target)
        comparison = compare(tmp_path, threshold=0.0)
        assert [row.environment for row in comparison.rows] == ["Acrobot-v1"] * 2 + ["CartPole-v1"] * 2 + ["all"] * 2
        none, periodic = comparison.rows[-2:]
        # CartPole-v1 from 0 to 20, Acrobot-v1 from -500 to -300; a quarter of four is left out at either end.
        assert float(none.training.iqm.value) == np.mean([0.5, 0.0])  # of 0, 0.5 and 0, 0.5
        assert float(periodic.greedy.iqm.value) == 1.0  # of 0.25, 1 and 1, 1
        expected = estimate([np.array([1.0, 1.0]), np.array([0.25, 1.0])])
        assert numbers(periodic.training.iqm) == numbers(expected)
        assert math.isnan(none.steps_to_threshold)
        (tmp_path / "periodic-10-Acrobot-v1-0" / "config.json").unlink()
        (tmp_path / "periodic-10-Acrobot-v1-1" / "config.json").unlink()
        assert all(row.environment != "all" for row in compare(tmp_path).rows)  # one group alone has them all

    def test_over_all_environments_where_no_run_has_ended_or_all_are_equal(self, tmp_path):
        for target, env in itertools.product(("none", "frozen"), ("CartPole-v1", "Acrobot-v1")):
            write_run(tmp_path / f"{target}-{env}", [5.0], env=env, target=target)
        assert np.isnan([numbers(row.greedy.iqm) for row in compare(tmp_path).rows]).all()
        for folder in list(tmp_path.iterdir()):
            (folder / "evaluation.json").write_text('{"mean": 7.0}')
        rows = compare(tmp_path).rows
        assert [float(row.greedy.iqm.value) for row in rows[:4]] == [7.0] * 4
        assert np.isnan([float(row.greedy.iqm.value) for row in rows[4:]]).tolist() == [True, True]

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"window": 0}, "window: got 0; expected"), ({"threshold": math.nan}, "threshold: got nan; expected")],
    )
    def test_options_out_of_range(self, two_groups, options, message):
        with pytest.raises(ValueError, match=message):
            compare(two_groups, **options)

    def test_a_config_that_cannot_be_read_is_named(self, two_groups):
        config = two_groups / "none-1" / "config.json"
        config.write_text(config.read_text().replace("n_steps", "m_steps"))
        with pytest.raises(ValueError, match=r"none-1: field of loop.draw: got 'm_steps'.*Did you mean 'n_steps'"):
            compare(two_groups)


def test_a_comparison_shows_itself_briefly_and_as_html(two_groups):
    comparison = compare(two_groups)
    assert repr(comparison) == (
        "Comparison(groups=['target=none', 'target=periodic:10'], environments=['CartPole-v1'], "
        "finished_runs=5, notes=0)"
    )
    assert "array" not in f"{comparison}"
    page = comparison._repr_html_()
    assert page.startswith("<table>\n<thead><tr><th>group</th><th>environment</th>")
    assert page.count("<tr>") == 3
    assert "<td>target=periodic:10</td><td>CartPole-v1</td><td>3</td><td>" in page
    assert "<p>Interquartile mean over seeds" in page
    named = compare(two_groups, labels={"none": "a<b & c"})
    assert "<td>a&lt;b &amp; c</td>" in named._repr_html_()


def test_labels_and_colors_follow_the_groups_through_every_result(two_groups):
    comparison = compare(two_groups, labels={"periodic:10": "hard"})
    assert list(comparison.scores) == ["target=none", "hard"]
    assert (
        [row.group for row in comparison.rows]
        == [curve.group for curve in comparison.curves]
        == ["target=none", "hard"]
    )
    assert {profile.group for profile in comparison.profiles()} == {"target=none", "hard"}
    assert [(row.group, row.over) for row in comparison.improvements()] == [("target=none", "hard")]
