"""The files of a run: checkpoints, metrics, parameters, configs; damaged ones are found."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

import polyak
from polyak.agents import Schedule
from polyak.experiments import cli
from polyak.experiments.runs import checkpoint, files, folders
from polyak.experiments.runs.config import from_json, to_json
from polyak.experiments.runs.records import JsonlWriter
from small_runs import config_of


def test_a_flipped_bit_is_found(tmp_path):
    tree, folder = {"w": np.arange(50_000, dtype=np.float32)}, tmp_path / "checkpoints"
    for step in (1, 2):
        checkpoint.save(folder, step, tree, {"loose": np.arange(3)}, {"step": step})
    restored, loose, metadata = checkpoint.restore_latest(folder, tree)
    assert (restored["w"] == tree["w"]).all()
    assert (loose["loose"].tolist(), metadata) == ([0, 1, 2], {"step": 2})
    every = [path for path in (folder / "2").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(every) > 3
    for path in every:
        whole = path.read_bytes()
        data = bytearray(whole)
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.warns(UserWarning, match="checkpoint 2 cannot be read .*; trying the one before it") as said:
            _, _, metadata = checkpoint.restore_latest(folder, tree)
        assert (metadata, len(said)) == ({"step": 1}, 1)
        path.write_bytes(whole)


def test_a_checkpoint_without_the_checksums_of_its_files_was_not_finished(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"w": np.zeros(1)}, {}, {})
    (tmp_path / "2" / "checksums.json").unlink()
    assert checkpoint.steps_saved(tmp_path) == [1]
    checkpoint.remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_checkpoint_of_other_shapes_is_refused_with_the_paths(tmp_path):
    checkpoint.save(tmp_path, 1, {"w": np.zeros(3), "b": np.zeros(1)}, {}, {})
    with pytest.raises(ValueError, match=r"of another run; only in the checkpoint: \['b'\]; \['w'\]: float64\(3,\) in"):
        checkpoint.restore_latest(tmp_path, {"w": np.zeros(4)})


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_not_unpacked(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(3 * 10**6))
    assert (tmp_path / "bomb.npz").stat().st_size < 10**5
    with pytest.raises(
        ValueError, match=r"bomb.npz: got a file of \d+ bytes that unpacks to 24000\d+; expected at most"
    ):
        files.read_arrays(tmp_path / "bomb.npz")
    np.savez_compressed(tmp_path / "small.npz", x=np.zeros(1000))
    assert files.read_arrays(tmp_path / "small.npz")["x"].shape == (1000,)


def test_metrics_shorter_than_the_checkpoint_knows_are_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="got 2 bytes; the checkpoint was made after 9"):
        JsonlWriter(tmp_path / "metrics.jsonl", at=9)


def test_parameters_that_do_not_fit_are_refused(tmp_path):
    def variables(*shape, name="w"):
        return {"params": {"m": {name: np.zeros(shape, np.float32)}}, "state": {"mean": np.ones(1, np.float32)}}

    diverged = variables(2, 2)
    diverged["params"]["m"]["w"][1, 0] = np.nan
    files.save_variables(tmp_path / "diverged.npz", diverged)
    with pytest.raises(ValueError, match=r"diverged.npz: params/m/w is not finite. Its run diverged; give another run"):
        files.load_variables(tmp_path / "diverged.npz", variables(2, 2))
    files.save_variables(tmp_path / "good.npz", variables(2, 2))
    assert files.load_variables(tmp_path / "good.npz", variables(2, 2))["state"]["mean"].tolist() == [1.0]
    for template, message in (
        (variables(3, 2), r"params/m/w: got float32\(2, 2\); the config's network has float32\(3, 2\)"),
        (variables(2, 2, name="b"), r"params/m/b: got nothing; the config's network has float32\(2, 2\)"),
        (
            {"params": {}, "state": variables(1)["state"]},
            r"params/m/w: got .*; the config's network has nothing",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            files.load_variables(tmp_path / "good.npz", template)
    with_more = {**variables(2, 2), "normalization": {"mean": np.ones(4, np.float32), "count": np.uint32(7)}}
    files.save_variables(tmp_path / "more.npz", with_more)
    assert int(files.load_variables(tmp_path / "more.npz", with_more)["normalization"]["count"]) == 7
    with pytest.raises(ValueError, match=r"normalization/count: got uint32\(\); the config's network has nothing"):
        files.load_variables(tmp_path / "more.npz", variables(2, 2))
    np.savez(tmp_path / "pickle.npz", **{"params/m/w": np.array([object()])})
    (tmp_path / "garbage.npz").write_bytes(b"no archive")
    for name in ("pickle.npz", "garbage.npz"):
        with pytest.raises(ValueError, match=r"cannot be read as npz of plain arrays \(no pickle is ever loaded\)"):
            files.load_variables(tmp_path / name, variables(2, 2))


def test_files_changed_by_hand_are_one_message(tmp_path, capsys):
    for text, message in (
        ("{", "got no JSON"),
        ("[]", "expected a JSON object"),
        ("{}", 'got no "config"'),
        ('{"config": 5}', 'got no "config"'),
        ('{"config": {"format": 2, "agent": 5}}', "agent: got 5; expected an object"),
    ):
        (tmp_path / "config.json").write_text(text)
        assert cli.run(["resume", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "fields", "message"),
    [
        ("9.1.0", {"wings": 2}, "by polyak 9.1.0, a newer version, .* polyak {},.*got 'wings'.*Upgrade polyak"),
        ("9.1.0", {"agent_name": "x"}, "by polyak 9.1.0, a newer version, .* polyak {},.*got 'x'.*Upgrade polyak"),
        ("9.1.0", {"format": 3}, "by polyak 9.1.0, a newer version, .* polyak {},.*format: got 3.*Upgrade polyak"),
        ("0.0.1", {"seed": "3"}, "by polyak 0.0.1, another version, .*seed: got '3'.*Read it with polyak 0.0.1"),
        (polyak.__version__, {"wings": 2}, "^field of the config: got 'wings'"),
        (None, {"wings": 2}, "^field of the config: got 'wings'"),
    ],
)
def test_a_run_of_another_version_that_cannot_be_read_names_both(tmp_path, version, fields, message):
    written = {"config": {**to_json(config_of()), **fields}, "versions": {"polyak": version}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=message.format(re.escape(polyak.__version__))):
        polyak.load(tmp_path)


def test_a_run_of_another_version_that_can_be_read_is_read(tmp_path):
    written = {"config": to_json(config_of()), "versions": {"polyak": "9.1.0"}}
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert folders.read_config(tmp_path) == config_of()


def test_configs_round_trip_and_unknown_keys_are_errors():
    assert from_json(to_json(config_of(max_gradient_norm=10))).agent.max_gradient_norm == 10.0
    config = config_of(max_gradient_norm=None, hidden_sizes=(3, 4))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert config.agent.network.hidden_sizes == (3, 4)
    with pytest.raises(ValueError, match=r"field of the config: got 'stepz'.*Did you mean 'steps'"):
        from_json({"format": 2, "stepz": 5})
    with pytest.raises(ValueError, match=r"field of agent: got 'lerning_rate'.*Did you mean 'learning_rate'"):
        from_json({"format": 2, "agent": {"lerning_rate": 5}})
    with pytest.raises(TypeError, match=r"loop.draw.batch_size: got '5' \(str\)"):
        from_json({"format": 2, "loop": {"draw": {"batch_size": "5"}}})
    assert from_json({"format": 2, "agent": {"learning_rate": 1}}).agent.learning_rate == Schedule(1)


def test_two_processes_on_one_folder(tmp_path):
    with files.locked(tmp_path):
        code = "import pathlib, sys\nfrom polyak.experiments.runs import files\n"
        code += "with files.locked(pathlib.Path(sys.argv[1])): pass"
        second = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
        assert second.returncode != 0
        assert f"process {os.getpid()} is using this folder" in second.stderr
    with files.locked(tmp_path):  # and afterwards it is free
        pass


@pytest.mark.parametrize(
    ("given", "way_out"), [(True, "omit --v-min and --v-max"), (False, "give the same --v-min and")]
)
def test_a_support_on_one_side_alone(given, way_out):
    name, support = "state/head/support", np.zeros(2, np.float32)
    with pytest.raises(ValueError, match=rf"^run: {name}: got .*; the config's network has .*: {way_out}"):
        files.fitted(
            {name: support} if given else {}, {} if given else {"state": {"head": {"support": support}}}, "run"
        )
