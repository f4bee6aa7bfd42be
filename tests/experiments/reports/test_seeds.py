"""Several seeds in processes side by side."""

import json

import pytest

from faulty_environments import RAISE, TRIGGER
from polyak.experiments import cli
from polyak.experiments.reports.seeds import lines, train_seeds
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.config import RunConfig
from small_runs import arguments, assert_same_run, config_of, silent


def test_a_line_for_each_seed():
    config = RunConfig(steps=2000, seed=3)
    newest = {3: {"step": 500, "return_mean_20": None}, 4: {"step": 1000, "return_mean_20": 20.0}}
    ends = {4: {"mean": 31.25}, 5: None, 6: "ValueError: no"}
    assert lines(config, newest, ends, range(3, 8)) == [
        "seed 3         500 / 2,000 steps   return - (last 20)",
        "seed 4   return 31.2 (greedy)",
        "seed 5   interrupted, saved",
        "seed 6   failed: ValueError: no",
        "seed 7   waiting",
    ]


def test_one_seed_is_none_of_several(tmp_path):
    with pytest.raises(ValueError, match=r"seeds: got 1; expected an integer >= 2. A single seed is --seed"):
        train_seeds(config_of(), tmp_path, 1, silent, silent)
    assert cli.run(["train", "--seeds", "0", "--out", str(tmp_path / "x")]) == 2


@pytest.mark.slow
def test_seeds_side_by_side_are_the_runs_of_each_seed_and_are_compared(tmp_path, capsys):
    folder = tmp_path / "seeds"
    assert cli.run([*arguments(["train", "dqn"], folder, seed=1), "--seeds", "2"]) == 0
    said = capsys.readouterr().out
    assert "seeds" in said
    assert f"figure    {folder / 'comparison.png'}" in said
    assert (folder / "comparison.png").stat().st_size > 1000
    for seed in (1, 2):
        runs.train(config_of("dqn", seed=seed), tmp_path / str(seed), silent, silent)
        assert_same_run(folder / f"seed{seed}", tmp_path / str(seed))


@pytest.mark.slow
def test_a_seed_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    trigger = tmp_path / "trigger"
    trigger.write_text(str(RAISE))
    monkeypatch.setenv(TRIGGER, str(trigger))
    config = config_of(env="faulty_environments:Once-v0")
    ends = train_seeds(config, tmp_path / "runs", 2, lambda newest, ends: None, silent, at_a_time=1)
    assert ends[0].startswith("EnvironmentFailure: environment 0, episode ")
    written = json.loads((tmp_path / "runs" / "seed1" / "evaluation.json").read_text())
    assert ends[1] == written
