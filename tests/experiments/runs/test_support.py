"""The support of a distribution: derived from the first rewards, recorded, checkpointed, overridden, or asked for."""

import gymnasium
import numpy as np
import pytest

import polyak
from polyak.experiments import cli
from polyak.experiments.runs import train as runs
from small_runs import arguments, assert_same_run, config_of, interrupt_at, records, silent

ATOMS = {"num_atoms": 11, "learning_starts": 120, "steps": 300, "target": "periodic:20"}


class Unrewarded(gymnasium.RewardWrapper):
    """CartPole without rewards."""

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium 1.1 reads it off the class)

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1"))

    def reward(self, reward):
        return 0.0


@pytest.fixture(scope="module", autouse=True)
def _registered():
    gymnasium.register("PolyakTestUnrewarded-v0", entry_point=Unrewarded)
    yield
    gymnasium.registry.pop("PolyakTestUnrewarded-v0")


@pytest.fixture(scope="module")
def derived(tmp_path_factory):
    return polyak.train(config=config_of("c51", **ATOMS), out=tmp_path_factory.mktemp("support") / "derived")


def supports(folder):
    return [(record["v_min"], record["v_max"]) for record in records(folder)]


@pytest.mark.slow
def test_a_derived_support_is_recorded_and_exported(derived, tmp_path):
    # A reward of 1 a step under a discount of 0.99; none before the first learner step.
    assert supports(derived.folder) == [(0, 0), (0, 100), (0, 100)]
    with np.load(derived.folder / "parameters.npz") as parameters:
        [name] = [name for name in parameters.files if name.endswith("/support")]
        assert parameters[name].tolist() == [0, 100]
    built_from = polyak.load_exported(polyak.export(derived, tmp_path / "export")).manifest["network"]["arguments"]
    assert (built_from["v_min"], built_from["v_max"]) == (0, 100)


@pytest.mark.slow
def test_a_derived_support_is_part_of_the_checkpoint(derived, tmp_path, monkeypatch):
    config = config_of("c51", **ATOMS)
    assert runs.train(config, tmp_path / "run", interrupt_at(200), silent) is None
    with monkeypatch.context() as patch:
        patch.setattr("polyak.agents.support.derive_support", lambda *_, **__: pytest.fail("derived again"))
        assert runs.resume(tmp_path / "run", silent, silent) is not None
    assert supports(tmp_path / "run") == [(0, 0), (0, 100), (0, 100)]
    assert_same_run(tmp_path / "run", derived.folder)


@pytest.mark.slow
def test_a_support_that_is_given_is_not_derived(tmp_path, monkeypatch):
    monkeypatch.setattr("polyak.agents.support.derive_support", lambda *_, **__: pytest.fail("derived"))
    assert cli.run(arguments(["train", "c51"], tmp_path / "run", **ATOMS, v_min=-5, v_max=50)) == 0
    config = polyak.load(tmp_path / "run").config
    assert (config.agent.head.v_min, config.agent.head.v_max) == (-5.0, 50.0)
    assert "v_min" not in records(tmp_path / "run")[-1]  # it is in the config


@pytest.mark.parametrize(
    ("options", "message", "recorded"),
    [
        ({"env": "PolyakTestUnrewarded-v0"}, "v_min: got None, and all of the first 120 rewards are 0. Give ", [0]),
        ({"discount": 1}, "v_min: got None with a discount of 1, under which returns have no bound. Give ", None),
    ],
    ids=["no rewards", "no bound"],
)
def test_without_a_support_training_stops_before_the_first_learner_step(
    options, message, recorded, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("polyak.experiments.loops.learning.learner_round", lambda *_: pytest.fail("learnt"))
    assert cli.run(arguments(["train", "c51"], tmp_path / "run", **ATOMS, **options)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "--v-min and --v-max" in said
    assert len(said.splitlines()) == 1
    if recorded is None:  # what the config alone shows stops the run before its first step
        assert not (tmp_path / "run").exists()
    else:
        assert [record["learner_steps"] for record in records(tmp_path / "run")] == recorded


def test_a_warm_start_keeps_the_support_that_it_loads(derived, tmp_path):
    config = config_of("c51", **ATOMS, env="PolyakTestUnrewarded-v0", initial=str(derived.folder))
    warm = polyak.train(config=config, out=tmp_path / "warm")
    assert supports(warm.folder) == [(0, 100)] * 3
