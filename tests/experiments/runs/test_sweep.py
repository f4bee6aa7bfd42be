"""Sweeps: lanes equal their own runs, are saved, continued, evaluated, and end apart from each other."""

import collections
import json
import shutil
import signal

import jax
import numpy as np
import pytest

import polyak
from functional_environments import tale
from polyak.agents import make_agent
from polyak.experiments.runs import sweep_drive
from polyak.experiments.runs.sweep import resume_sweep, sweep
from polyak.experiments.runs.sweep_grid import groups_of
from small_runs import records, silent
from small_sweeps import assert_equal_lane, assert_same_sweep, grid_of, own_run, run_sweep

RULES = ["periodic:5", "incremental:0.1", "none", "periodic:20 q/torso=none", "periodic:9 q/head=incremental:0.5"]

AGENTS = {
    "r2d2": {"lstm_size": 8, "sequence_length": 8, "burn_in": 2, "sequence_period": 4},
    "sr_spr": {"reset_period": "100env", "horizon": 2, "hidden_sizes": (8, 8)},
    "c51": {"num_atoms": 5},  # the support comes from the rewards of the lane
    "isdqn": {"shift_every": "20"},
}


@pytest.mark.slow
def test_lanes_equal_their_own_runs(tmp_path):
    axes = {"target": RULES, "learning_rate": [0.01]}
    grid = grid_of(axes=axes, epsilon=0.2)
    ends, said = run_sweep(grid, tmp_path / "sweep")
    assert "programs  1 program" in said
    assert [name for name, end in ends.items() if end["episodes"] == 2] == [lane.name for lane in grid.lanes]
    for number in (1, 3):
        lane = grid.lanes[number]
        assert_equal_lane(tmp_path / "sweep" / lane.name, own_run(lane, tmp_path / str(number)))


@pytest.mark.slow
def test_numbers_are_lanes_of_one_program(tmp_path):
    axes = {"learning_rate": [0.001, 0.1], "discount": [0.9, "linear(0.5,0.99,50%)"], "n_steps": [1, 3]}
    grid = grid_of("prioritized_dqn", axes=axes, epsilon="linear(1,0.1,50%)")
    assert len(groups_of(grid.lanes)) == 1
    run_sweep(grid, tmp_path / "sweep")
    for number in (0, 7):
        lane = grid.lanes[number]
        assert_equal_lane(tmp_path / "sweep" / lane.name, own_run(lane, tmp_path / str(number)))
    assert records(tmp_path / "sweep" / grid.lanes[0].name) != records(tmp_path / "sweep" / grid.lanes[7].name)


@pytest.fixture
def compiled():
    """Counts the programs that JAX compiles, by name."""
    names = collections.Counter()

    def hear(event, duration, **about):
        if event == "/jax/core/compile/backend_compile_duration":
            names[about["fun_name"]] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
    yield names
    jax.monitoring.unregister_event_duration_listener(hear)


def test_all_rules_and_seeds_are_compiled_once(compiled, tmp_path):
    run_sweep(grid_of(seeds=3, axes={"target": RULES, "discount": [0.9, 0.99]}, steps=200), tmp_path / "sweep")
    assert {name: compiled[f"jit({name})"] for name in ("init", "mapped", "readings", "program")} == {
        "init": 1,
        "mapped": 1,  # a chunk of all lanes
        "readings": 1,  # of a record
        "program": 1,  # of the evaluation
    }


def interrupt_at(step):
    """A ``show`` that acts as Ctrl-C when all lanes have reached a step."""

    def show(newest, ends):
        if newest and min(record["step"] for record in newest.values()) == step:
            signal.raise_signal(signal.SIGINT)

    return show


def quiet(newest, ends):
    """A ``show`` that shows nothing."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A sweep over rules and seeds with evaluations within, and its grid."""
    grid = grid_of(seeds=2, axes={"target": ["none", "periodic:5"]}, evaluate_every=200)
    folder = tmp_path_factory.mktemp("seeds") / "sweep"
    run_sweep(grid, folder)
    return folder, grid


def test_an_interrupted_sweep_continues_to_the_bit(seeds, tmp_path):
    folder, grid = seeds
    said = []
    ends = sweep(grid, tmp_path / "sweep", interrupt_at(200), said.append)
    assert set(ends.values()) == {None}
    assert said[-1] == f"interrupted, saved; continue with: polyak resume {tmp_path / 'sweep'}"
    assert (tmp_path / "sweep" / "checkpoints" / "0" / "200").is_dir()
    with (tmp_path / "sweep" / "none" / "seed0" / "metrics.jsonl").open("a") as metrics:
        metrics.write(json.dumps({"step": 300, "left": "by a killed process"}) + "\n")
    ends = resume_sweep(tmp_path / "sweep", quiet, silent)
    assert all(end["episodes"] == 2 for end in ends.values())
    assert_same_sweep(tmp_path / "sweep", folder, grid)
    assert not (tmp_path / "sweep" / "checkpoints").exists()
    said.clear()
    assert resume_sweep(tmp_path / "sweep", quiet, said.append) == ends
    assert said == [f"{tmp_path / 'sweep'} has ended; nothing is left to do."]


@pytest.mark.slow
def test_one_batch_of_lanes_equals_lanes_one_after_the_other_to_rounding(seeds, tmp_path):
    folder, grid = seeds
    said = run_sweep(grid, tmp_path / "sweep", lanes="vmap")[1]
    assert "devices   1 CPU device, the lanes of each as one batch" in said
    for lane in grid.lanes:
        ours, theirs = records(tmp_path / "sweep" / lane.name)[0], records(folder / lane.name)[0]
        assert ours["returns"] == theirs["returns"]
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-4)


@pytest.mark.slow
def test_the_keys_of_an_environment_are_restored(tmp_path):
    grid, given = grid_of(seeds=2, env="<tale>"), {"<tale>": tale()}
    run_sweep(grid, tmp_path / "whole", given=given)
    sweep(grid, tmp_path / "sweep", interrupt_at(200), silent, given=given)
    resume_sweep(tmp_path / "sweep", quiet, silent, given)
    assert_same_sweep(tmp_path / "sweep", tmp_path / "whole", grid)


@pytest.mark.slow
def test_programs_continue_where_they_were(tmp_path):
    grid = grid_of(axes={"batch_size": [8, 4], "target": ["none", "periodic:5"]})
    run_sweep(grid, tmp_path / "whole")
    first, second = (group[0].name for group in groups_of(grid.lanes))

    def show(newest, ends):
        if second in newest and newest[second]["step"] == 200:
            signal.raise_signal(signal.SIGINT)

    ends = sweep(grid, tmp_path / "sweep", show, silent)
    assert ends[first]["episodes"] == 2
    assert ends[second] is None
    assert [path.name for path in (tmp_path / "sweep" / "checkpoints").iterdir()] == ["1"]
    resume_sweep(tmp_path / "sweep", quiet, silent)
    assert_same_sweep(tmp_path / "sweep", tmp_path / "whole", grid)


@pytest.mark.slow
def test_a_checkpoint_of_another_sweep_is_refused(seeds, tmp_path):
    _, grid = seeds
    for name in ("one", "other"):
        sweep(grid, tmp_path / name, interrupt_at(200), silent)
    shutil.rmtree(tmp_path / "one" / "checkpoints")
    (tmp_path / "other" / "checkpoints").rename(tmp_path / "one" / "checkpoints")
    with pytest.raises(ValueError, match="the checkpoint is of another run"):
        resume_sweep(tmp_path / "one", quiet, silent)


def test_an_error_names_the_checkpoint_and_the_way_on(seeds, tmp_path, monkeypatch):
    _, grid = seeds
    write = sweep_drive.LaneMetrics.write

    def fail(metrics, lane, record):
        if record["step"] == 300:
            raise OSError("no space is left")
        write(metrics, lane, record)

    monkeypatch.setattr(sweep_drive.LaneMetrics, "write", fail)
    with pytest.raises(OSError, match="no space is left") as caught:
        run_sweep(grid, tmp_path / "sweep")
    assert caught.value.__notes__ == [
        f"the checkpoint of step 150 is kept; continue with: polyak resume {tmp_path / 'sweep'}"
    ]


@pytest.mark.slow
def test_a_maker_of_ones_own_has_a_program_for_each_rule_but_not_for_each_seed(tmp_path):
    def make(config, spec, **options):
        return make_agent(config, spec, **options)

    grid, given = grid_of(seeds=2, axes={"target": ["none", "periodic:5"]}, maker="<make>"), {"<make>": make}
    said = run_sweep(grid, tmp_path / "sweep", given=given)[1]
    assert "programs  2 programs, compiled and run one after the other: target none; target periodic:5" in said
    plain = grid_of(seeds=2, axes={"target": ["none", "periodic:5"]})
    run_sweep(plain, tmp_path / "plain")
    for lane in plain.lanes:
        assert_equal_lane(tmp_path / "sweep" / lane.name, tmp_path / "plain" / lane.name)


@pytest.mark.slow
def test_agents_with_resets_sequences_and_self_prediction(tmp_path):
    for agent, fields in AGENTS.items():
        grid = grid_of(agent, axes={"learning_rate": [0.01, 0.001]}, **fields)
        run_sweep(grid, tmp_path / agent)
        lane = grid.lanes[1]
        assert_equal_lane(tmp_path / agent / lane.name, own_run(lane, tmp_path / f"{agent}-alone"))


def test_a_lane_is_evaluated_as_its_own_run(seeds, tmp_path):
    folder, grid = seeds
    lane = grid.lanes[3]
    own_run(lane, tmp_path / "run")
    assert_equal_lane(folder / lane.name, tmp_path / "run")
    assert (folder / lane.name / "best.json").read_text() == (tmp_path / "run" / "best.json").read_text()


def test_a_lane_is_the_folder_of_a_run(seeds):
    folder, grid = seeds
    name = grid.lanes[3].name
    lane = polyak.load(folder / name)
    assert lane.config == grid.lanes[3].config
    assert lane.evaluation == json.loads((folder / name / "evaluation.json").read_text())
    assert polyak.evaluate(folder / name, episodes=2) == lane.evaluation
    assert polyak.evaluate(folder / name, episodes=1, checkpoint="best")["episodes"] == 1
    written = json.loads((folder / name / "config.json").read_text())
    assert written["resolved"]["targets"]["q"]["rule"] == "periodic:5"
    with pytest.raises(ValueError, match=f"lane of a sweep. Continue the sweep: polyak resume {folder.resolve()}"):
        polyak.resume(folder / name)
    with pytest.raises(
        ValueError, match=f"holds a sweep, not a run. Give the folder of a lane, such as {folder}/none/seed0"
    ):
        polyak.load(folder)
    comparison = polyak.compare(folder)
    assert [(row.group, row.seeds) for row in comparison.rows] == [("target=none", 2), ("target=periodic:5", 2)]


def test_what_is_written_of_a_sweep(seeds):
    folder = seeds[0]
    written = json.loads((folder / "sweep.json").read_text())
    assert written["axes"] == {"target": ["none", "periodic:5"]}
    assert written["lanes"] == ["none/seed0", "none/seed1", "periodic-5/seed0", "periodic-5/seed1"]
    assert written["versions"]["jax"] == jax.__version__
    assert written["diverged"] == {}
    assert {path.name for path in (folder / "none" / "seed0").iterdir()} == {
        "best.json",
        "best.npz",
        "config.json",
        "evaluation.json",
        "metrics.jsonl",
        "parameters.npz",
    }


@pytest.mark.slow
def test_what_differs_in_its_program_is_a_program_of_its_own(tmp_path):
    axes = {"num_atoms": [5, 9], "target": ["none", "periodic:5"]}
    grid = grid_of("c51", axes=axes, v_min=0.0, v_max=10.0, steps=200, log_every=200)
    ends, said = run_sweep(grid, tmp_path / "sweep")
    assert "programs  2 programs, compiled and run one after the other: num_atoms 5; num_atoms 9" in said
    assert "program 2 of 2: num_atoms 9" in said
    assert len(ends) == 4
    for lane in grid.lanes:
        atoms = lane.config.agent.head.num_atoms
        with np.load(tmp_path / "sweep" / lane.name / "parameters.npz") as found:
            assert found["params/head/logits/b"].shape == (2 * atoms,)


@pytest.mark.slow
def test_a_lane_that_diverges_disturbs_no_other(tmp_path):
    fields = {"steps": 300, "max_gradient_norm": None, "skip_nonfinite": False, "optimizer": "sgd"}
    axes = {"learning_rate": [0.001, 1e30]}
    grid = grid_of(axes=axes, **fields)
    ends, said = run_sweep(grid, tmp_path / "sweep")
    good, bad = grid.lanes
    assert ends[bad.name].startswith("diverged: ")
    assert any(text.startswith(f"warning: {bad.name}: ") for text in said)
    assert_equal_lane(tmp_path / "sweep" / good.name, own_run(good, tmp_path / "run"))
    assert not (tmp_path / "sweep" / bad.name / "evaluation.json").exists()
    assert bad.name in json.loads((tmp_path / "sweep" / "sweep.json").read_text())["diverged"]
    with pytest.raises(ValueError, match="training has diverged"):
        own_run(bad, tmp_path / "bad")
    assert records(tmp_path / "sweep" / bad.name) == records(tmp_path / "bad")
    assert resume_sweep(tmp_path / "sweep", quiet, silent) == ends
