"""A run that is evaluated while it trains, stopped early, extended, and read at any checkpoint."""

import json

import numpy as np
import pytest

import polyak
from polyak.experiments import cli
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.evaluation import parameters_at
from small_runs import assert_same_run, config_of, interrupt_at, records, silent

EVALUATED = {"evaluate_every": 200}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    assert runs.train(config_of(**EVALUATED), folder, silent, silent) is not None
    return folder


def greedy(folder):
    return {record["step"]: record["greedy_return"] for record in records(folder) if "greedy_return" in record}


def test_records_have_the_greedy_returns_of_the_steps_that_were_asked_for(evaluated):
    found = greedy(evaluated)
    assert list(found) == [200, 400, 600]
    for step in (400, 600):  # those that are kept
        again = polyak.evaluate(evaluated, episodes=2, checkpoint=step, seed=_seed(step))
        assert again["mean"] == found[step]


def _seed(step):
    from polyak.experiments.loops.evaluation import evaluation_seed

    return evaluation_seed(0, step)


def test_evaluations_change_nothing_that_is_learnt(evaluated, tmp_path):
    runs.train(config_of(), tmp_path / "run", silent, silent)
    with np.load(evaluated / "parameters.npz") as ours, np.load(tmp_path / "run" / "parameters.npz") as theirs:
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files)
    assert not (tmp_path / "run" / "best.npz").exists()


def test_the_parameters_of_the_best_evaluation_are_kept(evaluated):
    found = greedy(evaluated)
    best = json.loads((evaluated / "best.json").read_text())
    assert best == {"step": min(step for step in found if found[step] == max(found.values())), "return": best["return"]}
    assert best["return"] == max(found.values())
    run = polyak.load(evaluated, checkpoint="best")
    assert polyak.evaluate(evaluated, episodes=2, seed=_seed(best["step"]), checkpoint="best")["mean"] == best["return"]
    assert run.parameters.name == "best.npz"


def test_a_run_with_evaluations_is_resumed_to_the_bit(evaluated, tmp_path):
    assert runs.train(config_of(**EVALUATED), tmp_path, interrupt_at(300), silent) is None
    assert runs.resume(tmp_path, silent, silent) is not None
    assert_same_run(tmp_path, evaluated)
    assert (tmp_path / "best.json").read_text() == (evaluated / "best.json").read_text()


def test_an_interrupted_run_is_evaluated_loaded_exported_and_warm_started_from(tmp_path, capsys):
    folder = tmp_path / "run"
    assert runs.train(config_of(), folder, interrupt_at(300), silent) is None
    assert sorted(path.name for path in (folder / "checkpoints").glob("*.npz")) == ["200.npz", "300.npz"]
    with pytest.raises(ValueError, match=r"the run has not ended.*can be read with --checkpoint: 200, 300, newest"):
        polyak.evaluate(folder)
    with pytest.raises(ValueError, match=r"checkpoint: got '100'; .* has 200, 300, newest"):
        polyak.load(folder, checkpoint=100)
    newest = polyak.load(folder, checkpoint="newest")
    assert newest.evaluation == {}
    assert newest.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
    assert cli.run(["evaluate", str(folder), "--checkpoint", "300", "--episodes", "1"]) == 0
    assert "return" in capsys.readouterr().out
    assert cli.run(["export", str(folder), "--checkpoint", "newest", "--out", str(tmp_path / "export")]) == 0
    warm = config_of(initial=str(folder / "checkpoints" / "300.npz"))
    assert runs.train(warm, tmp_path / "warm", silent, silent) is not None


def test_a_return_that_is_reached_ends_the_run(tmp_path):
    result = runs.train(config_of(**EVALUATED, stop_at_return=1.0), tmp_path, silent, silent)
    assert result is not None
    assert list(greedy(tmp_path)) == [200]
    said = []
    assert runs.resume(tmp_path, silent, said.append) == result
    assert "has ended" in said[0]
    with pytest.raises(
        ValueError, match=r"stop_at_return: got 1.0 and no evaluation within the run. Try --evaluate-ev"
    ):
        config_of(stop_at_return=1.0)


def test_a_callback_sees_every_record_and_may_stop_the_run(tmp_path):
    seen = []

    def callback(carry, record):
        seen.append((carry.steps, record["step"]))
        return record["step"] == 300

    config = config_of()
    assert runs.train(config, tmp_path, silent, silent, callbacks=[callback]) is not None
    assert seen == [(100, 100), (200, 200), (300, 300)]
    assert parameters_at(tmp_path, "newest").name == "300.npz"


def test_an_error_of_a_callback_loses_nothing(tmp_path, evaluated):
    class PrunedError(Exception):
        pass

    def callback(carry, record):
        if record["step"] == 300:
            raise PrunedError

    with pytest.raises(PrunedError):
        runs.train(config_of(**EVALUATED), tmp_path, silent, silent, callbacks=[callback])
    assert runs.resume(tmp_path, silent, silent) is not None
    assert_same_run(tmp_path, evaluated)


def test_a_finished_run_is_extended_as_if_it_had_been_longer(tmp_path, capsys):
    fixed = {"epsilon": 0.1, "learning_rate": 0.001}  # no schedule over a part of the run
    runs.train(config_of(steps=800, **fixed), tmp_path / "long", silent, silent)
    folder = tmp_path / "short"
    runs.train(config_of(steps=400, **fixed), folder, silent, silent)
    with pytest.raises(ValueError, match=r"steps: got 400; the run is at step 400. Give more, as in --steps 800"):
        runs.resume(folder, silent, silent, steps=400)
    assert cli.run(["resume", str(folder), "--steps", "800", "--quiet"]) == 0
    capsys.readouterr()
    assert_same_run(folder, tmp_path / "long")
    assert polyak.load(folder).config.steps == 800


@pytest.mark.slow
def test_a_run_that_stopped_early_and_is_extended_has_not_ended_until_it_has(tmp_path):
    config = config_of()
    assert runs.train(config, tmp_path, silent, silent, callbacks=[lambda _, record: record["step"] == 200]) is not None
    assert runs.resume(tmp_path, interrupt_at(400), silent, steps=config.steps) is None
    assert not (tmp_path / "evaluation.json").exists()
    assert runs.resume(tmp_path, silent, silent) is not None
    assert records(tmp_path)[-1]["step"] == config.steps


def test_a_finished_run_stays_finished_without_its_checkpoints(tmp_path):
    import shutil

    result = runs.train(config_of(), tmp_path, silent, silent)
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "metrics.jsonl").read_text()
    assert runs.resume(tmp_path, silent, silent) == result
    assert (tmp_path / "metrics.jsonl").read_text() == before
    with pytest.raises(ValueError, match="has no checkpoint, from which it could be extended"):
        runs.resume(tmp_path, silent, silent, steps=1000)
