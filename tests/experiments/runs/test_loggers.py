"""Loggers: their files equal the records, and their failures do not reach the run."""

import csv
import importlib.machinery
import json
import os
import signal
import struct
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from polyak.experiments import cli
from polyak.experiments.runs import loggers
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.config import RunConfig, from_json
from polyak.experiments.runs.pretrain import pretrain
from polyak.experiments.runs.records import TIMES, JsonlWriter, plain, read_jsonl
from small_runs import arguments, config_of, pretrain_config_of, silent, write_images

RECORDS = [
    {"step": 5, "loss": None, "q": 0.5, "returns": [1.0, 2.0], "lengths": [3, 2], "ended_at": [3, 5]},
    {"step": 10, "loss": 0.25, "q": 0.75, "returns": [], "lengths": [], "ended_at": []},
    {"step": 15, "loss": 0.125, "q": -1e-7, "skipped": 2, "returns": [4.0], "lengths": [9], "ended_at": [14]},
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.run(arguments(["train"], folder)) == 0
    return folder


def write_all(names, folder, records, step=0):
    said = []
    (folder / "metrics.jsonl").touch()
    with loggers.open_loggers(names, folder, step, {"config": {"seed": 7}}, said.append) as log:
        for record in records:
            log(record)
    return said


def read_csv(folder):
    """The rows of ``metrics.csv`` as numbers."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(text) if text else None for name, text in row.items()} for row in csv.DictReader(file)]


def read_episodes(folder):
    """Rows of ``episodes.csv``: step, return and length."""
    with (folder / "episodes.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    assert names == ["step", "return", "length"]
    return [(int(step), float(episode_return), int(length)) for step, episode_return, length in rows]


def all_episodes(records):
    return [episode for record in records for episode in loggers.episodes(record)]


def read_tensorboard(folder):
    """Tag to ``[(step, value), ...]`` as TensorBoard shows it: what a later start purges is left out."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            if event.session_log.status == SessionLog.START:
                found = {tag: [point for point in curve if point[0] < event.step] for tag, curve in found.items()}
            for value in event.summary.value:
                if value.HasField("tensor"):
                    continue
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def read_settings(folder):
    """Texts of the settings in TensorBoard's files, by step."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            found += [
                (event.step, value.tag, value.tensor.string_val[0].decode())
                for value in event.summary.value
                if value.metadata.plugin_data.plugin_name == "text"
            ]
    return found


def curves(records):
    """Curves of records for TensorBoard: every number by its step, in single precision, and every episode."""
    found = {}
    for record in records:
        episode_numbers = (("charts/episode_return", "returns"), ("charts/episode_length", "lengths"))
        for name, values in ((name, record[field]) for name, field in episode_numbers):
            found.setdefault(name, []).extend(zip(record["ended_at"], np.float32(values).tolist(), strict=True))
        for name, value in record.items():
            if name != "step" and value is not None and not isinstance(value, list):
                found.setdefault(loggers.tag(name), []).append((record["step"], float(np.float32(value))))
    return found


def numbers(records):
    return [{name: value for name, value in record.items() if not isinstance(value, list)} for record in records]


def test_a_run_leaves_its_records_in_every_form(finished):
    records = list(read_jsonl(finished / "metrics.jsonl"))
    assert len(records) == 6
    assert sum(len(record["returns"]) for record in records) == records[-1]["episodes"] > 5
    assert read_csv(finished) == numbers(records)
    assert read_tensorboard(finished) == curves(records)
    assert read_episodes(finished) == all_episodes(records)
    ((step, name, table),) = read_settings(finished)
    assert (step, name) == (0, "settings/text_summary")
    lines = table.splitlines()
    assert lines[:2] == ["| setting | value |", "|---|---|"]
    assert "| config.loop.draw.batch_size | `8` |" in lines
    assert '| config.agent.head.kind | `"scalar"` |' in lines
    assert any(line.startswith("| versions.jax | ") for line in lines)


# Group to the fields of records in it, by the part of their names before the first "/".
PLACES = {
    "charts": """learner_steps episodes env_restarts replay_size epsilon resets reward_scale n_steps importance_exponent
    return_last return_mean return_mean_20 return_mean_window length_mean_20 greedy_return greedy_standard_error probe
    feature_rank dormant_units""",
    "losses": """loss gradient_norm q td_error clipped_targets skipped priority importance_weight v_min v_max
    prediction_loss prediction_cosine isotropy_penalty feature_spread projection_spread""",
    "targets": "target_distance target_churn target_agreement policy_churn steps_since_update",
    "time": "seconds steps_per_second compile_seconds compilations",
}
EVERYTHING = {
    "head": "categorical",
    "sampling": "prioritized",
    "average": "incremental:0.01",
    "skip_nonfinite": True,
    "normalize_rewards": True,
    "resets": "periodic",
    "reset_period": "100",
    "n_steps": "linear(5,1,50%)",
    "evaluate_every": 200,
    "target": "periodic:50 q/head=periodic:10",
    "isotropy": 0.1,
}


@pytest.mark.slow
def test_every_field_of_every_run_has_its_group_of_tags(tmp_path, finished):
    runs.train(config_of("byol_pi", loggers=(), steps=300, **EVERYTHING), tmp_path / "everything", silent, silent)
    images = write_images(tmp_path / "images.npz")
    pretrain(pretrain_config_of(images), tmp_path / "pretraining", silent, silent)
    folders = (finished, tmp_path / "everything", tmp_path / "pretraining")
    found = [record for folder in folders for record in read_jsonl(folder / "metrics.jsonl")]
    names = {name for record in found for name in numbers([record])[0]} - {"step"}
    groups = {name: group for group, text in PLACES.items() for name in text.split()}
    assert {name.split("/")[0] for name in names} == groups.keys()
    assert {loggers.tag(name) for name in names} == {f"{groups[name.split('/')[0]]}/{name}" for name in names}


def test_compiling_is_in_the_records(finished):
    first, *_, last = read_jsonl(finished / "metrics.jsonl")
    assert 0 < first["compile_seconds"] <= last["compile_seconds"] < last["seconds"] + 1
    assert 2 <= first["compilations"] <= last["compilations"] < 30


def test_new_columns_in_mid_run_and_nothing_measured(tmp_path):
    assert write_all(["csv", "tensorboard"], tmp_path, RECORDS) == []
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert lines == ["step,loss,q,skipped", "5,,0.5,", "10,0.25,0.75,", "15,0.125,-1e-07,2"]
    found = read_tensorboard(tmp_path)
    assert found == curves(RECORDS)
    assert found["losses/loss"] == [(10, 0.25), (15, 0.125)]
    assert found["charts/episode_return"] == [(3, 1.0), (5, 2.0), (14, 4.0)]
    assert (tmp_path / "episodes.csv").read_text() == "step,return,length\n3,1.0,3\n5,2.0,2\n14,4.0,9\n"
    assert read_settings(tmp_path) == [
        (0, "settings/text_summary", "| setting | value |\n|---|---|\n| config.seed | `7` |")
    ]


def test_records_without_episodes_make_no_table_of_episodes(tmp_path):
    assert write_all(["csv"], tmp_path, [{"step": 5, "loss": 0.5}]) == []
    assert not (tmp_path / "episodes.csv").exists()


def test_an_episode_whose_return_is_not_finite_has_an_empty_cell(tmp_path):
    record = plain({"step": 5, "returns": [np.inf], "lengths": [3], "ended_at": [4]})
    assert write_all(["csv"], tmp_path, [record]) == []
    assert (tmp_path / "episodes.csv").read_text() == "step,return,length\n4,,3\n"


def test_a_metric_that_is_not_finite_or_on_the_device_is_recorded(tmp_path):
    record = plain({"step": 5, "loss": float("nan"), "q": jnp.float32(np.inf), "td": jnp.float32(0.5), "ended_at": []})
    assert record == {"step": 5, "loss": None, "q": None, "td": 0.5, "ended_at": []}
    with JsonlWriter(tmp_path / "metrics.jsonl") as metrics:
        metrics.write(record)
    assert list(read_jsonl(tmp_path / "metrics.jsonl")) == [record]
    (tmp_path / "metrics.jsonl").unlink()
    assert write_all(["csv", "tensorboard"], tmp_path, [record]) == []
    assert read_csv(tmp_path) == [{"step": 5.0, "loss": None, "q": None, "td": 0.5}]
    assert read_tensorboard(tmp_path) == {"losses/td": [(5, 0.5)]}


@pytest.mark.slow
def test_a_resumed_run_has_the_files_of_one_that_never_stopped(tmp_path, finished):
    said, folder = [], tmp_path / "run"

    def interrupt(record):
        if record["step"] == 300:
            signal.raise_signal(signal.SIGINT)

    assert runs.train(config_of(), folder, interrupt, said.append) is None
    # As if it had been killed later on: more was written than the checkpoint knows.
    with loggers.open_loggers(["tensorboard"], folder, 300, {}, said.append) as log:
        log({"step": 400, "loss": 9.0, "odd": 1.0, "returns": [9.0], "lengths": [9], "ended_at": [350]})
    for name in ("metrics.csv", "episodes.csv"):
        with (folder / name).open("a") as file:
            file.write("400,1,2")
    assert runs.resume(folder, silent, said.append) is not None
    assert len(said) == 2  # interrupted, resuming

    def untimed(rows):
        return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]

    assert untimed(read_csv(folder)) == untimed(read_csv(finished))
    assert read_csv(folder) == numbers(read_jsonl(folder / "metrics.jsonl"))
    assert read_episodes(folder) == read_episodes(finished)
    ours, theirs = (read_tensorboard(path) for path in (folder, finished))
    assert ours.pop("losses/odd") == []
    ours, theirs = (
        {name: curve for name, curve in found.items() if not name.startswith("time/")} for found in (ours, theirs)
    )
    assert ours == theirs


class StandIn(types.ModuleType):
    """Module in the place of wandb or trackio that keeps its arguments, and fails on request."""

    def __init__(self, fails_at=None, name="wandb"):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.fails_at, self.logged, self.finished = fails_at, [], 0

    def Settings(self, **settings):  # noqa: N802
        return settings

    def init(self, **options):
        self.options = options
        return self

    def log(self, values, step):
        self.logged.append((step, values))
        if len(self.logged) == self.fails_at:
            raise ConnectionError("the network is down")

    def finish(self):
        self.finished += 1


def test_weights_and_biases_is_offline_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    for mode in ("offline", "online"):
        monkeypatch.setitem(sys.modules, "wandb", wandb := StandIn())
        monkeypatch.setenv("WANDB_MODE", mode)
        if mode == "offline":
            monkeypatch.delenv("WANDB_MODE")
        loggers.check_installed(["wandb"])
        assert write_all(["wandb"], tmp_path, RECORDS, step=20) == []
        assert wandb.options["mode"] == mode
        assert wandb.options["config"] == {"config": {"seed": 7}}
        assert wandb.options["dir"] == str(tmp_path)
        assert wandb.options["name"] == f"{tmp_path.name} from step 20"
        steps = [step for step, _ in wandb.logged]
        assert steps == sorted(steps)  # it drops what goes back
        assert wandb.logged[-1] == (15, {"losses/loss": 0.125, "losses/q": -1e-7, "losses/skipped": 2})
        assert (14, {"charts/episode_return": 4.0, "charts/episode_length": 9}) in wandb.logged
        assert wandb.finished == 1


def test_trackio_gets_the_same_points_and_prints_nothing(tmp_path, monkeypatch, capsys):
    class Printing(StandIn):
        def init(self, **options):
            print("View dashboard by running in your terminal")
            return super().init(**options)

        def finish(self):
            print("Run finished")
            super().finish()

    monkeypatch.setitem(sys.modules, "trackio", trackio := Printing(name="trackio"))
    loggers.check_installed(["trackio"])
    assert write_all(["trackio"], tmp_path, RECORDS, step=20) == []
    assert trackio.options["config"] == {"config": {"seed": 7}}
    assert trackio.options["name"] == f"{tmp_path.name} from step 20"
    assert not trackio.options["embed"]  # shows no page in a notebook
    assert trackio.logged == [point for record in RECORDS for point in loggers.points(record)]
    assert trackio.finished == 1
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_logger_that_fails_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch, finished, capsys):
    monkeypatch.setitem(sys.modules, "wandb", wandb := StandIn(fails_at=3))
    folder = tmp_path / "run"
    assert cli.run(arguments(["train"], folder, loggers=("csv", "wandb"))) == 0
    error = capsys.readouterr().err
    assert error.count("logger wandb failed (ConnectionError: the network is down); the run continues without it") == 1
    assert error.count("\n") == 1
    assert len(wandb.logged) == 3
    assert wandb.finished == 1
    assert (folder / "evaluation.json").read_text() == (finished / "evaluation.json").read_text()
    assert read_csv(folder) == numbers(read_jsonl(folder / "metrics.jsonl"))
    assert not (folder / "tensorboard").exists()


def test_a_logger_that_cannot_be_opened_or_closed_is_said_and_no_more(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    (said,) = write_all(["tensorboard", "csv"], tmp_path, RECORDS)
    assert said.startswith("logger tensorboard failed (FileExistsError")
    assert len(read_csv(tmp_path)) == 3

    class Unclosable:
        def __init__(self, *_):
            pass

        def write(self, record):
            pass

        def close(self):
            raise OSError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loggers._OPEN, "csv", Unclosable)
        (said,) = write_all(["csv"], tmp_path, RECORDS)
    assert "the disk is full" in said


def test_a_logger_whose_package_is_missing_is_an_error_before_the_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert cli.run(arguments(["train"], tmp_path / "run", loggers="wandb")) == 2
    assert "Install it with `pip install wandb`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    # The folder that wandb leaves where it was used can be imported, and is no wandb.
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    with pytest.raises(ValueError, match="pip install wandb"):
        loggers.check_installed(["csv", "wandb"])
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ValueError, match=r"loggers: 'trackio' needs the package trackio.*pip install trackio"):
        loggers.check_installed(["csv", "trackio"])


def test_which_loggers_a_config_takes():
    assert from_json({"format": 2, "loggers": []}).loggers == ()
    assert from_json({"format": 2, "loggers": ["csv"]}).loggers == ("csv",)
    with pytest.raises(ValueError, match=r"loggers: got 'cvs'.*Did you mean 'csv'"):
        from_json({"format": 2, "loggers": ["cvs"]})
    with pytest.raises(ValueError, match=r"loggers: got 'cvs'.*Did you mean 'csv'"):
        RunConfig(loggers=("cvs",))
    with pytest.raises(ValueError, match="loggers: got csv, csv; expected each at most once"):
        RunConfig(loggers=("csv", "csv"))


def test_no_loggers_on_the_command_line(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(runs, "train", lambda config, *_: seen.append(config.loggers))
    assert cli.run(["train", "--loggers", "--out", str(tmp_path)]) == 130
    assert seen == [()]


@pytest.mark.slow
def test_a_run_whose_stdout_and_stderr_are_closed_goes_on(tmp_path, finished):
    folder, ends = tmp_path / "run", [os.pipe(), os.pipe()]
    for read, _ in ends:
        os.close(read)
    command = [word for word in arguments(["train"], folder) if word != "--quiet"]
    done = subprocess.run([sys.executable, "-m", "polyak", *command], stdout=ends[0][1], stderr=ends[1][1], timeout=300)
    for _, write in ends:
        os.close(write)
    assert done.returncode == 0
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(
        (finished / "evaluation.json").read_text()
    )
