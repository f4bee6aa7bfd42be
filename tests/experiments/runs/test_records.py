"""Means over the newest episodes in the records of a run, and the learning curve of them."""

import io

import numpy as np
import pytest

from polyak.experiments.runs import train as runs
from polyak.experiments.runs.learning_curve import draw_learning_curve
from polyak.experiments.runs.records import EpisodeMeans, read_jsonl
from small_runs import config_of, silent


def random_records(count, every=100):
    """Records with 0 to 5 episodes each, which end at steps of their own."""
    generator = np.random.default_rng(0)
    for step in range(every, (count + 1) * every, every):
        ended = np.sort(generator.choice(np.arange(step - every + 1, step + 1), generator.integers(6), replace=False))
        returns, lengths = generator.normal(0, 100, len(ended)), generator.integers(1, 50, len(ended))
        yield {"step": step, "ended_at": ended.tolist(), "returns": returns.tolist(), "lengths": lengths.tolist()}


def assert_means(records, window):
    """The fields of each record are means over all episodes so far, made another way."""
    ended, returns, lengths = [], [], []
    for record in records:
        ended, returns, lengths = (
            [*all_so_far, *record[name]]
            for all_so_far, name in ((ended, "ended_at"), (returns, "returns"), (lengths, "lengths"))
        )
        in_window = [value for step, value in zip(ended, returns, strict=True) if step > record["step"] - window]
        wanted = {"return_mean_20": returns[-20:], "length_mean_20": lengths[-20:], "return_mean_window": in_window}
        for name, values in wanted.items():
            assert record[name] == (pytest.approx(np.mean(values)) if values else None), (name, record["step"])


def test_means_over_twenty_episodes_and_over_a_window_of_steps():
    means = EpisodeMeans(window=300)
    records = [record | means.of(record) for record in random_records(40)]
    assert sum(record["return_mean_window"] is not None for record in records) > 35
    assert_means(records, 300)
    quiet = means.of({"step": 5000, "ended_at": [], "returns": [], "lengths": []})
    assert quiet["return_mean_window"] is None
    assert quiet["return_mean_20"] == records[-1]["return_mean_20"]


def test_means_begin_where_the_records_of_a_resumed_run_end():
    records, means = list(random_records(40)), EpisodeMeans(window=300)
    unbroken = [means.of(record) for record in records]
    resumed = EpisodeMeans(300, records[:25])
    assert [resumed.of(record) for record in records[25:]] == unbroken[25:]


def test_a_return_that_was_not_finite_is_not_passed_over():
    means = EpisodeMeans(100, [{"step": 5, "ended_at": [4], "returns": [None], "lengths": [4]}])
    fields = means.of({"step": 9, "ended_at": [9], "returns": [3.0], "lengths": [5]})
    assert np.isnan(fields["return_mean_20"])
    assert fields["length_mean_20"] == 4.5


def test_a_run_records_the_means_of_ten_log_intervals(tmp_path):
    runs.train(config_of(loggers=(), log_every=20), tmp_path / "run", silent, silent)
    assert_means(read_jsonl(tmp_path / "run" / "metrics.jsonl"), 200)


def test_the_title_of_a_learning_curve_is_no_mathematics():
    metrics = {"returns": np.ones(2), "ended_at": np.arange(2.0)}
    figure = draw_learning_curve(metrics, "name $x^$")
    figure.savefig(io.BytesIO(), format="png")
    assert figure.axes[0].get_title() == "name $x^$"
