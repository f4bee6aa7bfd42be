"""Grids of sweeps: lanes, groups that share a program, and bad input."""

import json

import numpy as np
import pytest

import polyak
from polyak.experiments import cli
from polyak.experiments.commands import SweepCommand
from polyak.experiments.runs.sweep import sweep
from polyak.experiments.runs.sweep_fields import axes_of
from polyak.experiments.runs.sweep_flags import parse_sweep
from polyak.experiments.runs.sweep_grid import groups_of, label_of
from polyak.experiments.runs.sweep_lanes import make_lanes
from polyak.experiments.runs.sweep_memory import check_memory, needed_bytes
from small_runs import silent
from small_sweeps import FIELDS, grid_of


def names(grid):
    return [lane.name for lane in grid.lanes]


def read(*arguments):
    return parse_sweep(arguments, SweepCommand, "Sweep.")


def quiet(newest, ends):
    """A ``show`` that shows nothing."""


def test_lanes_are_the_product_of_the_axes_with_the_seeds_innermost():
    grid = grid_of(seeds=2, axes={"target": ["none", "periodic:5"], "learning_rate": [0.001, "1e-2"]}, seed=3)
    assert names(grid)[:5] == [
        "none--learning_rate-0.001/seed3",
        "none--learning_rate-0.001/seed4",
        "none--learning_rate-0.01/seed3",
        "none--learning_rate-0.01/seed4",
        "periodic-5--learning_rate-0.001/seed3",
    ]
    assert len(grid.lanes) == 8
    assert [lane.config.seed for lane in grid.lanes] == [3, 4] * 4
    assert grid.axes == {"target": ("none", "periodic:5"), "learning_rate": ("0.001", "0.01")}
    assert {lane.config.loggers for lane in grid.lanes} == {()}


def test_seeds_alone_are_a_grid():
    assert names(grid_of(seeds=2)) == ["seed0", "seed1"]


def test_settings_whose_names_differ_in_signs_alone_have_folders_of_their_own():
    grid = grid_of(axes={"target": ["periodic:5 q/torso=none", "periodic:5 /torso=none"]})
    assert names(grid) == ["periodic-5-q-torso-none/seed0", "periodic-5-torso-none/seed0"]
    grid = grid_of(axes={"target": ["periodic:5 q/torso=none", "periodic:5  q/torso=none"]})
    assert names(grid) == ["periodic-5-q-torso-none/seed0", "periodic-5-q-torso-none-2/seed0"]


TRACED = {
    "target": ["none", "frozen", "periodic:6env", "incremental:cosine(0.1)", "periodic:5 q/torso=none"],
    "learning_rate": [0.1, 0.01],
    "epsilon": [0.1, "linear(1,0.1,50%)"],
    "discount": [0.9, "horizon(0.9,0.99,100)"],
    "n_steps": [1, "linear(3,1,50%)"],
    "average": ["incremental:0.1", "incremental:0.2"],
}
SPLIT = {
    "batch_size": [8, 16],
    "hidden_sizes": [(8,), (8, 8)],
    "learning_rate": [0.1, "linear(0.1,0,100%)"],
    "average": ["none", "incremental:0.1"],
    "env": ["CartPole-v1", "Acrobot-v1"],
    "num_envs": [1, 2],
    "train_every": [1, 2],
    "double": [True, False],
}


@pytest.mark.parametrize("name", TRACED)
def test_numbers_share_a_program(name):
    assert len(groups_of(grid_of(axes={name: TRACED[name]}, seeds=2).lanes)) == 1


@pytest.mark.parametrize("name", SPLIT)
def test_what_is_compiled_has_a_program_for_each_value(name):
    grid = grid_of(axes={name: SPLIT[name], "target": ["none", "frozen"]}, seeds=2)
    groups = groups_of(grid.lanes)
    assert [len(group) for group in groups] == [4, 4]
    assert [label_of(group, grid.axes) for group in groups] == [f"{name} {text}" for text in grid.axes[name]]


def test_names_of_targets_and_importance_exponents():
    axes = {"target": ["periodic:5", "periodic:5 encoder=none", "none encoder=incremental:0.1"]}
    assert [len(group) for group in groups_of(grid_of("zp", axes=axes).lanes)] == [1, 2]
    axes = {"importance_exponent": [0.4, 0.5]}
    assert len(groups_of(grid_of("prioritized_dqn", axes=axes).lanes)) == 1


def test_a_flag_with_several_values_is_an_axis():
    found = read(
        "dqn", "--env", "CartPole-v1", "--target", "none", "periodic:50", "--hidden-sizes", "8", "8", "--seeds", "3",
        "--learning-rate", "1e-4", "0.001", "--batch-size", "16", "--no-double", "--n-steps", "1", "3",
    )  # fmt: skip
    assert found.agent == "dqn"
    assert found.command.seeds == 3
    assert found.fields == {"env": "CartPole-v1", "hidden_sizes": (8, 8), "batch_size": 16, "double": False}
    assert list(found.axes) == ["target", "learning_rate", "n_steps"]
    assert found.axes["target"] == ["none", "periodic:50"]
    assert read("dqn", "--head", "scalar", "categorical").axes == {"head": ["scalar", "categorical"]}
    assert read("c51", "--num-atoms", "21", "51").axes == {"num_atoms": [21, 51]}


@pytest.mark.parametrize("option", ["-h", "--help", "--help-all"])
def test_help_after_values(option, capsys):
    with pytest.raises(SystemExit) as stop:
        read("dqn", "--target", "none", "frozen", option)
    assert stop.value.code == 0
    assert "polyak sweep dqn" in capsys.readouterr().out


def test_lists_from_python_are_axes():
    single, axes, given = axes_of(
        {"target": ("none", "frozen"), "learning_rate": np.array([0.1, 0.2]), "hidden_sizes": [(8,)], "seed": 1}
    )
    assert (single, given) == ({"seed": 1}, {})
    assert axes == {"target": ["none", "frozen"], "learning_rate": [0.1, 0.2], "hidden_sizes": [(8,)]}


BAD_GRIDS = {
    "no seeds": ({"seeds": 0}, r"seeds: got 0; expected an integer >= 1"),
    "repeated": ({"axes": {"learning_rate": [0.1, "1e-1"]}}, r"learning_rate: got 0.1 1e-1, which repeats a value"),
    "empty": ({"axes": {"target": []}}, r"target: got no value for the axis, so the grid is empty"),
    "seed": ({"axes": {"seed": [0, 1]}}, r"seed: .* cannot be an axis: give the number of seeds with --seeds"),
    "steps": ({"axes": {"steps": [300, 400]}}, r"steps: .* cannot be an axis: lanes of different lengths"),
    "output": ({"axes": {"log_every": [50, 100]}}, r"log_every: .* cannot be an axis: it does not change what"),
    "loop": ({"axes": {"loop": ["host", "device"]}}, r"loop: .* cannot be an axis: all lanes are trained by one"),
    "stop": ({"evaluate_every": 100, "stop_at_return": 9.0}, r"stop_at_return: got 9.0; the lanes of a sweep end"),
    "range": ({"axes": {"discount": [0.9, 1.5]}}, r"discount: got 1.5; expected"),
    "unknown": ({"axes": {"target": ["none", "sometimes"]}}, r"target: got 'sometimes'; expected one of"),
    "of another part": ({"axes": {"num_atoms": [5, 9]}}, r"num_atoms: got 5, but head is 'scalar'"),
}


@pytest.mark.parametrize("case", BAD_GRIDS)
def test_bad_grids(case):
    options, message = BAD_GRIDS[case]
    with pytest.raises(ValueError, match=message):
        groups_of(grid_of(**options).lanes)


BAD_SWEEPS = {
    "not functional": ({"env": "FrozenLake-v1", "loop": "device"}, r"loop: got 'device', but env 'FrozenLake-v1' is"),
    "normalized": ({"normalize_observations": True, "loop": "device"}, r"normalize_observations: got True with the"),
    "both loops": (
        {"axes": {"env": ["CartPole-v1", "FrozenLake-v1"]}},
        r"loop: got the device loop for env-CartPole-v1",
    ),
    "no such part": (
        {"axes": {"target": ["none", "periodic:5 q/tors=none"]}},
        r"target: no parameter matches 'q/tors'; .* Did you mean 'q/torso'\?",
    ),
    "too large": (
        {"replay_capacity": 400_000_000, "seeds": 1_000},
        r"replay_capacity: got 400000000 for 1000 lanes, which need \d+.\d\d GiB in all, \d+.\d\d GiB per lane; ",
    ),
}


@pytest.mark.parametrize("case", BAD_SWEEPS)
def test_bad_sweeps_leave_no_files(case, tmp_path):
    options, message = BAD_SWEEPS[case]
    with pytest.raises(ValueError, match=message):
        sweep(grid_of(**options), tmp_path / "sweep", quiet, silent)
    assert not (tmp_path / "sweep").exists()


def test_what_fits_into_memory_is_in_the_error():
    grid = grid_of(seeds=4, replay_capacity=10_000)
    lanes = make_lanes(grid.lanes, [None], "vmap")
    each, sweep_bytes = needed_bytes(lanes)
    assert sweep_bytes == 4 * each
    check_memory(lanes, sweep_bytes)
    with pytest.raises(ValueError, match=r"Try fewer lanes \(2 fit\) or --replay-capacity (\d+)") as caught:
        check_memory(lanes, sweep_bytes - each - 1)
    smaller = int(str(caught.value).split("--replay-capacity ")[1].rstrip("."))
    fits = make_lanes(grid_of(seeds=4, replay_capacity=smaller).lanes, [None], "vmap")
    check_memory(fits, sweep_bytes - each - 1)


def test_a_folder_that_holds_another_sweep(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=f"out: {tmp_path} holds a sweep. Give another folder, or continue it: polyak"):
        polyak.sweep("dqn", out=tmp_path, **FIELDS)
    (tmp_path / "sweep.json").write_text(json.dumps({"id": "1"}))
    with pytest.raises(ValueError, match=r"sweep.json: got no 'axes'; was the file changed by hand\?"):
        polyak.resume(tmp_path)
    with pytest.raises(ValueError, match="steps: got 900; a sweep is not extended"):
        polyak.resume(tmp_path, steps=900)


BAD_WORDS = {
    ("--seeds", "2", "3"): "seeds: got 2 3; expected one value, because it is no field of a run",
    ("--seeds", "0"): "seeds: got 0; expected an integer >= 1",
    ("--target", "none", "--target", "frozen"): "target: got --target twice; expected it once. Give all values after",
    ("--hidden-sizes", "8", "--hidden-sizes", "16"): "hidden_sizes: got --hidden-sizes twice; expected it once. Its",
    ("--target", "none", "none"): "target: got none none, which repeats a value",
    ("--lerning-rate", "1", "2"): "--lerning-rate: no such option. Did you mean '--learning-rate'?",
    ("--target", "periodic:5", "q/torso=none"): "has rules for parts of 'q' but no main rule",
}


@pytest.mark.parametrize("words", BAD_WORDS)
def test_bad_words(words, capsys, tmp_path):
    assert cli.run(["sweep", "dqn", *words, "--out", str(tmp_path / "sweep")]) == 2
    assert BAD_WORDS[words] in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()
