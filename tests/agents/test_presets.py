"""The table of agents and the presets."""

import subprocess
import sys

import pytest

from polyak.agents import AGENTS, PRESETS, Configs, make_configs
from polyak.agents.optimizer_parts import Adam
from polyak.agents.parts import bringers, leaves
from polyak.agents.presets import DEFAULT_AGENT, DEFAULT_PRESET, differences, lineage
from polyak.agents.schedules import Schedule


@pytest.mark.parametrize("module", ["agents", "agents.presets", "agents.parts", "experiments.runs.config"])
def test_configs_import_nothing_heavy(module):
    heavy = ("jax", "numpy", "haiku", "optax", "tyro")
    code = f"import sys, polyak.{module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# What a preset may set besides numbers.
SETTINGS = {"torso", "self_prediction", "optimizer", "error", "augmentation", "target", "reset_period", "shift_every"}


def _is_number(value):
    return not isinstance(value, bool) and isinstance(value, int | float | Schedule | tuple | None)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", AGENTS)
def test_every_preset_is_numbers_and_a_few_settings_for_every_agent(name, preset):
    found, classic = leaves(make_configs(name, preset)), leaves(make_configs(name, DEFAULT_PRESET))
    assert found.keys() - bringers(Configs).keys() == classic.keys() - bringers(Configs).keys()
    others = {leaf for leaf in found if not (_is_number(found[leaf]) and _is_number(classic.get(leaf)))} - SETTINGS
    assert {"head", "double", "core", "windows", "sampling"} & found.keys() <= others  # what makes an agent
    for leaf in others:
        assert found[leaf] == classic[leaf], leaf


def test_presets_name_numbers_and_a_few_settings_alone():
    for preset, numbers in PRESETS.items():
        for name, differences_of_agent in numbers.items():
            made = leaves(make_configs(name, preset))
            assert {leaf for leaf in differences_of_agent if not _is_number(made[leaf])} <= SETTINGS


def test_the_names_in_presets_are_agents():
    for numbers in PRESETS.values():
        assert set(numbers) <= set(AGENTS)
    assert DEFAULT_AGENT in AGENTS
    assert DEFAULT_PRESET in PRESETS


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_its_difference_from_the_agent_it_begins_with(name):
    entry = AGENTS[name]
    if entry.begins_with is None:
        assert make_configs(name) == Configs()
        return
    assert lineage(name)[-2:] == [entry.begins_with, name]
    numbers = {leaf for preset in PRESETS.values() for leaf in preset.get(name, {})}
    brought = {leaf for leaf, unions in bringers(Configs).items() if set(unions) & set(entry.difference)}
    assert {leaf for leaf, *_ in differences(entry.begins_with, name)} <= set(entry.difference) | numbers | brought
    made = leaves(make_configs(name, "atari"))
    for leaf in set(entry.difference) - numbers:
        assert made[leaf] == leaves(make_configs(name))[leaf]


def test_dqn_is_the_algorithm_of_its_paper():
    found = leaves(make_configs("dqn", "atari"))
    paper = {"head": "scalar", "double": False, "error": "huber", "dueling": False, "sampling": "uniform"}
    paper |= {"torso": "nature", "batch_size": 32, "optimizer": "rmsprop", "frame_stack": 4, "train_every": 4}
    assert {name: found[name] for name in paper} == paper
    assert str(found["epsilon"]) == "linear(1,0.1,1000000)"
    assert found["n_steps"].value_at(0, 1) == 1


def test_no_optimizer_has_the_epsilon_of_another():
    """RMSProp's 0.01 in the square root of a mean of squares would slow Adam down a hundredfold."""
    for name in AGENTS:
        found = leaves(make_configs(name, "atari"))
        assert found["optimizer"] == "rmsprop" or found["optimizer_epsilon"] <= 0.001, name
    assert make_configs("hl_gauss", "atari").agent.optimizer == make_configs("c51", "atari").agent.optimizer
    assert make_configs("dqn", "atari", {"optimizer": "adam"}).agent.optimizer == Adam()


def test_rainbow_differs_from_dqn_in_its_six_parts():
    found = {name: values for name, *values in differences("dqn", "rainbow")}
    six = {"double", "sampling", "dueling", "n_steps", "head", "noisy_sigma"}
    of_the_parts = {
        "priority_exponent",
        "importance_exponent",
        "num_atoms",
        "v_min",
        "v_max",
        "error",
        "value_rescaling",
    }
    assert set(found) == six | of_the_parts | {"epsilon", "target"}
    assert found["head"] == ["scalar", "categorical"]
    assert found["num_atoms"] == ["-", 51]
    assert differences("rainbow", "rainbow") == []
    assert [name for name, *_ in differences("dqn", "double_dqn", "atari")] == ["double", "target", "epsilon"]


def test_fields_of_ones_own_come_last():
    configs = make_configs("rainbow", "atari", {"num_atoms": 21, "target": "none"})
    assert (configs.agent.head.num_atoms, configs.agent.target, configs.agent.head.v_min) == (21, "none", -10.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dqm",), "^agent: got 'dqm'; expected one of dqn, .*Did you mean 'dqn'"),
        (("dqn", "atarii"), "^preset: got 'atarii'; expected one of classic, .*Did you mean 'atari'"),
        (("dqn", "classic", {"num_atoms": 3}), "^num_atoms: got 3, but head is 'scalar'"),
    ],
)
def test_names_that_do_not_exist(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_configs(*arguments)
