"""Runs compared: the numbers by hand and by brute force, and what belongs together."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.experiments.reports.comparison import (
    compare,
    estimate,
    steps_to,
    training_returns,
)
from polyak.experiments.reports.comparison_table import comparison_table
from polyak.experiments.reports.run_groups import grouped, read_run, run_folders
from written_runs import write_run, write_two_groups


def numbers(found):
    return tuple(float(number) for number in found)


class TestEstimate:
    def test_the_interquartile_mean_by_hand(self):
        scores = np.array([70.0, 1.0, 5.0, 2.0, -90.0, 4.0, 3.0, 60.0])
        assert float(estimate([scores]).value) == (2 + 3 + 4 + 5) / 4
        assert float(estimate([np.array([1.0, 2.0, 9.0])]).value) == 4.0  # a quarter of three is none
        assert float(estimate([np.array([1.0, 2.0, 9.0, 2.5, 100.0])]).value) == 4.5  # and of five one

    @pytest.mark.parametrize(
        "strata",
        [
            [[1.0, 2.0, 10.0]],
            [[3.0, 1.0, 10.0, 4.0]],
            [[3.0, 1.0, 10.0], [5.0, 7.0]],
            [[0.0, 1.0], [2.0, 5.0], [3.0, 9.0]],
        ],
        ids=["three seeds", "four", "two environments", "three environments"],
    )
    def test_the_interval_is_that_of_all_resamples(self, strata):
        means = []
        for drawn in itertools.product(*(itertools.product(scores, repeat=len(scores)) for scores in strata)):
            pooled = sorted(itertools.chain(*drawn))
            out = len(pooled) // 4
            means.append(np.mean(pooled[out : len(pooled) - out]))
        _, low, high = estimate([np.array(scores) for scores in strata])
        around = np.percentile(means, [2.0, 3.0, 97.0, 98.0], method="inverted_cdf")  # few means: each has many draws
        assert around[0] <= low <= around[1]
        assert around[2] <= high <= around[3]

    def test_seeds_are_drawn_within_their_environment(self):
        strata = [np.zeros(5), np.full(5, 10.0)]
        assert numbers(estimate(strata)) == (5.0, 5.0, 5.0)
        _, low, high = estimate([np.concatenate(strata)])
        assert low < 5 < high

    def test_one_seed_has_no_interval_and_no_seed_no_number(self):
        assert np.array_equal(numbers(estimate([np.array([3.0])])), (3.0, math.nan, math.nan), equal_nan=True)
        assert np.isnan(estimate([np.array([3.0]), np.array([3.0, 5.0])]).low)
        assert np.isnan(numbers(estimate([np.array([])]))).all()
        assert np.isnan(numbers(estimate([np.array([1.0, math.nan, 2.0])]))).all()

    def test_the_same_scores_give_the_same_interval(self):
        scores = np.random.default_rng(0).normal(size=(7, 3))
        for ours, again in zip(estimate([scores], resamples=50), estimate([scores], resamples=50), strict=True):
            assert ours.shape == (3,)
            assert ours.tolist() == again.tolist()


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


class TestGroups:
    def test_seed_environment_and_what_changes_no_learning_part_nothing(self, tmp_path):
        changed = [
            {},
            {"seed": 1},
            {"seed": 2, "log_every": 50, "checkpoint_every": 300, "evaluation_episodes": 7},
            {"seed": 3, "num_envs": 1, "workers": 1, "worker_timeout": 9.0, "on_env_failure": "restart"},
            {"env": "Acrobot-v1"},
        ]
        runs = [read_run(write_run(tmp_path / str(i), [1.0], **fields)) for i, fields in enumerate(changed)]
        [(label, strata)] = grouped(runs).items()
        assert label == "n_step_double_dqn"
        assert {environment: [run.seed for run in one] for environment, one in strata.items()} == {
            "CartPole-v1": [0, 1, 2, 3],
            "Acrobot-v1": [0],
        }

    def test_a_label_says_what_differs_and_no_more(self, tmp_path):
        agents = [{"target": "none"}, {"n_steps": 3}, {"target": "none", "hidden_sizes": (8, 9)}]
        runs = [read_run(write_run(tmp_path / str(i), [1.0], **agent)) for i, agent in enumerate(agents)]
        assert list(grouped(runs)) == [
            "hidden_sizes=8, target=none, n_steps=10",
            "hidden_sizes=8, target=periodic:50, n_steps=3",
            "hidden_sizes=8 9, target=none, n_steps=10",
        ]
        assert list(grouped(runs[:2])) == ["target=none, n_steps=10", "target=periodic:50, n_steps=3"]

    def test_the_name_of_an_agent_stands_for_its_config(self, tmp_path):
        agents = [
            ("dqn", {"target": "none"}),
            ("dqn", {"n_steps": 3}),
            ("c51", {"target": "none"}),
            ("c51", {}),
        ]
        first, second, other, plain = (
            read_run(write_run(tmp_path / str(i), [1.0], agent=agent, **fields))
            for i, (agent, fields) in enumerate(agents)
        )
        assert list(grouped([first, other])) == ["dqn", "c51"]
        assert list(grouped([first, second, other])) == [
            "dqn, target=none, n_steps=1",
            "dqn, target=periodic:200, n_steps=3",
            "c51, target=none",
        ]
        assert list(grouped([first, plain])) == ["dqn, target=none", "c51"]

    def test_the_numbers_of_a_preset_are_part_of_its_name(self, tmp_path):
        first, other = (
            read_run(write_run(tmp_path / agent, [1.0], agent=agent, preset="atari")) for agent in ("dqn", "c51")
        )
        assert list(grouped([first, other])) == ["dqn", "c51"]

    def test_a_folder_of_runs_stands_for_its_runs_and_no_run_counts_twice(self, tmp_path):
        for name in ("b", "a"):
            write_run(tmp_path / "runs" / name, [1.0])
        (tmp_path / "runs" / "notes").mkdir()
        write_run(tmp_path / "runs" / "sweep" / "first", [1.0])
        found = run_folders([tmp_path / "runs", tmp_path / "runs" / "a", tmp_path / "runs" / ".." / "runs" / "b"])
        assert found == [tmp_path / "runs" / name for name in ("a", "b", "sweep/first")]

    def test_a_seed_counts_once_and_is_said_so(self, tmp_path):
        """Row 117 of the faults: duplicate seeds."""
        write_run(tmp_path / "a", [1.0, 1.0])
        write_run(tmp_path / "b", [1.0, 1.0], greedy=5.0)
        write_run(tmp_path / "c", [1.0, 1.0], greedy=7.0)
        write_run(tmp_path / "d", [3.0, 3.0], greedy=8.0, seed=1)
        comparison = compare(tmp_path)
        assert [row.seeds for row in comparison.rows] == [2]
        assert float(comparison.rows[0].greedy.value) == 6.5
        assert comparison.notes == [
            f"{tmp_path / 'a'} repeats {tmp_path / 'b'}, config and seed 0; it is left out.",
            f"{tmp_path / 'c'} repeats {tmp_path / 'b'}, config and seed 0; it is left out.",
        ]


@pytest.fixture
def two_groups(tmp_path):
    return write_two_groups(tmp_path / "runs")


class TestCompare:
    def test_numbers_by_hand(self, two_groups):
        comparison = compare(two_groups, window=2, threshold=5.0)
        none, periodic = comparison.rows
        assert (none.group, periodic.group) == ("target=none", "target=periodic:10")
        assert (none.environment, none.seeds, none.unfinished) == ("CartPole-v1", 2, 0)
        assert numbers(periodic.training) == (6.0, 4.0, 8.0)  # with three seeds every resample of one seed alone counts
        assert numbers(periodic.greedy) == (60.0, 40.0, 80.0)
        # 4 never reaches 5; 6 does with two episodes in the window, 60 + 10; 8 likewise, 70 + 10.
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
        assert (none.seeds, none.unfinished, float(none.training.value)) == (2, 1, 7.0)
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
            "is unfinished, at step 0 of 600: its curve is compared, and no number of the table has it.",
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
        assert float(none.training.value) == np.mean([0.5, 0.0])  # of 0, 0.5 and 0, 0.5
        assert float(periodic.greedy.value) == 1.0  # of 0.25, 1 and 1, 1
        expected = estimate([np.array([1.0, 1.0]), np.array([0.25, 1.0])])
        assert numbers(periodic.training) == numbers(expected)
        assert math.isnan(none.steps_to_threshold)
        (tmp_path / "periodic-10-Acrobot-v1-0" / "config.json").unlink()
        (tmp_path / "periodic-10-Acrobot-v1-1" / "config.json").unlink()
        assert all(row.environment != "all" for row in compare(tmp_path).rows)  # one group alone has them all

    def test_over_all_environments_where_no_run_has_ended_or_all_are_equal(self, tmp_path):
        for target, env in itertools.product(("none", "frozen"), ("CartPole-v1", "Acrobot-v1")):
            write_run(tmp_path / f"{target}-{env}", [5.0], env=env, target=target)
        assert np.isnan([numbers(row.greedy) for row in compare(tmp_path).rows]).all()
        for folder in list(tmp_path.iterdir()):
            (folder / "evaluation.json").write_text('{"mean": 7.0}')
        rows = compare(tmp_path).rows
        assert [float(row.greedy.value) for row in rows[:4]] == [7.0] * 4
        assert np.isnan([float(row.greedy.value) for row in rows[4:]]).tolist() == [True, True]

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
