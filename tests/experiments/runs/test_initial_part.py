"""An encoder that starts an agent: from a pretraining run and from a run, and what does not fit."""

import re

import gymnasium
import jax
import numpy as np
import pytest

import polyak
from polyak.experiments import cli
from polyak.experiments.runs import build, files
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.pretrain import build_pretraining
from polyak.experiments.runs.record_frames import record_frames
from small_runs import config_of, pretrain_config_of


class Patterns(gymnasium.Env):
    """Images of 6x6; an episode has 5 steps."""

    observation_space = gymnasium.spaces.Box(0, 255, (6, 6), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), 1.0, self.t == 5, False, {}

    def observe(self):
        return self.np_random.integers(0, 256, (6, 6)).astype(np.uint8)


ID = "Patterns-v0"
SIZES = {"frame_stack": 2, "torso": "small", "hidden_sizes": (8,)}


@pytest.fixture(scope="module", autouse=True)
def patterns():
    gymnasium.register(ID, Patterns)
    yield
    gymnasium.registry.pop(ID)


@pytest.fixture(scope="module")
def pretrained(patterns, tmp_path_factory):
    """Folder like that of a pretraining run on frames of the environment: its parameters are those at the start."""
    folder = tmp_path_factory.mktemp("pretrained")
    record_frames(ID, folder / "frames.npz", steps=12, frame_stack=2, seed=3)
    config = pretrain_config_of(folder / "frames.npz", torso="small", hidden_sizes=(8,))
    state = build_pretraining(config).byol.init(jax.random.key(5))
    files.save_variables(folder / "parameters.npz", {"params": state.params, "state": state.state})
    return folder, state.params


def first_carry(agent="dqn", **fields):
    parts = build.build(config_of(agent, env=ID, **SIZES | fields))
    try:
        return runs.first_carry(parts)
    finally:
        parts.environment.close()


def test_frames_are_recorded_as_the_agent_sees_them(tmp_path, capsys):
    assert (
        cli.run(["record-frames", ID, "--out", str(tmp_path / "frames.npz"), "--steps", "9", "--frame-stack", "2"]) == 0
    )
    assert capsys.readouterr().out == f"recorded  {tmp_path / 'frames.npz'}, images (9, 6, 6, 2) uint8\n"
    images = np.load(tmp_path / "frames.npz")["images"]
    assert len({image.tobytes() for image in images}) == 9
    for number in (1, 2, 3, 4, 6):  # within an episode the older frame is the newer one of the step before
        np.testing.assert_array_equal(images[number, ..., 0], images[number - 1, ..., 1])
    np.testing.assert_array_equal(images[5, ..., 0], images[5, ..., 1])  # a new episode repeats its first frame
    other = record_frames(ID, tmp_path / "other.npz", steps=9, frame_stack=2, seed=1)
    assert (other != images).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([ID, "--out", "x.npy"], "^out: got x.npy; expected a file that ends in .npz"),
        ([ID, "--out", "old.npz"], "^out: old.npz exists"),
        ([ID, "--out", "x.npz", "--steps", "0"], "^steps: got 0; expected an integer >= 1"),
        ([ID, "--out", "no/folder/x.npz"], "^out: no/folder/x.npz cannot be written"),
        (["CartPole-v1", "--out", "x.npz"], r"^env: CartPole-v1 has observations of shape \(4,\); expected images"),
    ],
)
def test_what_cannot_be_recorded(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.npz").touch()
    assert cli.run(["record-frames", *arguments]) == 2
    said = capsys.readouterr().err.removeprefix("polyak: ")
    assert re.search(message, said), said


def test_encoder_and_its_targets_start_from_the_pretrained_one_and_the_head_does_not(pretrained):
    folder, encoder = pretrained
    carry, fresh = first_carry(initial=str(folder), initial_part="encoder"), first_carry()
    modules = [name for name in fresh.agent.params if name.startswith("torso/")]
    assert len(modules) == 7
    for name, leaves in fresh.agent.params.items():
        for leaf, value in leaves.items():
            expected = encoder[name][leaf] if name in modules else value
            np.testing.assert_array_equal(carry.agent.params[name][leaf], expected)
            np.testing.assert_array_equal(carry.agent.targets["q"].params[name][leaf], expected)


@pytest.mark.slow
def test_a_recurrent_core_that_the_source_lacks_is_drawn_with_the_seed(pretrained):
    fields = {"windows": "sequences", "sequence_length": 5, "sequence_period": 2, "lstm_size": 4, "burn_in": 0}
    carry = first_carry("r2d2", initial=str(pretrained[0]), initial_part="encoder", **fields)
    np.testing.assert_array_equal(carry.agent.params["torso/conv2_d"]["w"], pretrained[1]["torso/conv2_d"]["w"])
    assert "lstm/linear" in carry.agent.params


@pytest.mark.slow
def test_the_encoder_of_an_ordinary_run_starts_another_head(tmp_path):
    fields = {"steps": 60, "log_every": 60, "normalize_observations": True}
    first = polyak.train(config=config_of(**fields), out=tmp_path / "first")
    config = config_of("c51", seed=1, initial=str(first.folder), initial_part="encoder", **fields)
    parts = build.build(config)
    carry = runs.first_carry(parts)
    parts.environment.close()
    name = "torso/mlp/~/linear_0"
    np.testing.assert_array_equal(carry.agent.params[name]["w"], first.variables.params[name]["w"])
    assert carry.agent.params["head/logits"]["w"].shape == (8, 102)
    arrays = np.load(first.folder / "parameters.npz")
    assert carry.normalization.observation.count == arrays["normalization/observation/count"] + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"hidden_sizes": (9,)},
            r"^initial: .*: params/torso/mlp/~/linear_0/b: got float32\(8,\); the config's network has float32\(9,\)",
        ),
        (
            {"frame_stack": 3},
            r"^initial: .*: params/torso/conv2_d/w: got float32\(3, 3, 2, 32\); .* has float32\(3, 3, 3, 32\)",
        ),
        (
            {"torso": "mlp"},
            r"^initial: .*: params/torso/conv2_d/b: got float32\(32,\); the config's network has nothing",
        ),
    ],
)
def test_an_encoder_that_does_not_fit_is_named_by_path_with_both_shapes(fields, message, pretrained):
    changed = {"env": ID, **SIZES, "initial": str(pretrained[0]), "initial_part": "encoder"} | fields
    parts = build.build(config_of("dqn", **changed))
    with pytest.raises(ValueError, match=message):
        runs.first_carry(parts)
    parts.environment.close()


def test_parameters_without_an_encoder_are_refused(pretrained, tmp_path):
    np.savez(tmp_path / "other.npz", **{"params/linear/w": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"^initial: .*other.npz has no encoder that fits: it has the modules linear;"):
        first_carry(initial=str(tmp_path / "other.npz"), initial_part="encoder")


def test_a_part_without_a_source_is_refused():
    with pytest.raises(ValueError, match=r"^initial_part: got 'encoder' and no initial, .*Try --initial RUN"):
        config_of(initial_part="encoder")
    with pytest.raises(ValueError, match=r"^initial_part: got 'hed'; expected one of all, encoder"):
        config_of(initial="x", initial_part="hed")


def test_a_whole_network_is_not_read_from_a_pretraining_run(pretrained):
    with pytest.raises(ValueError, match=r"^initial: .*: params/head/"):
        first_carry(initial=str(pretrained[0]))
