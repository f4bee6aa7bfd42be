"""Names of functional environments, on the command line and from Python."""

import importlib.util
import subprocess
import sys

import gymnasium as gym
import pytest

from functional_environments import tale
from polyak.experiments.environments.functional.names import NAMES, functional_environment
from polyak.experiments.environments.functional.types import FunctionalEnvironment
from polyak.experiments.environments.make import given_environment
from polyak.experiments.environments.types import EnvironmentFailure
from scripted_environments import Story

MODULE = """
import gymnasium as gym
from polyak.experiments.environments.functional.catch import catch
from polyak.experiments.environments.functional.types import FunctionalEnvironment

def small(rows=3) -> FunctionalEnvironment:
    return catch(rows=rows)

def plain(rows=3):
    return catch(rows=rows)

def quoted(rows=3) -> "FunctionalEnvironment":
    return catch(rows=rows)

instance = catch(rows=7)
number = 3
calls = []

class Closing(gym.Env):
    def __init__(self):
        calls.append("made")
    def close(self):
        calls.append("closed")

def of_gymnasium():
    return Closing()

"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_functional.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_functional"
    sys.modules.pop("my_functional", None)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_its_environment(name):
    environment = functional_environment(name)
    assert isinstance(environment, FunctionalEnvironment)
    assert environment.name == name
    assert name.startswith("polyak/") == (name not in gym.registry)


def test_keyword_arguments_are_those_of_the_function():
    assert functional_environment("polyak/Catch-v0", {"rows": 4}).spec.observation.shape == (4, 5)
    with pytest.raises(
        ValueError,
        match=r"env_kwargs: got {'size': 3} .*polyak/Catch-v0 takes rows, columns\.",
    ):
        functional_environment("polyak/Catch-v0", {"size": 3})
    with pytest.raises(ValueError, match="CartPole-v1 takes max_episode_steps, sutton_barto_reward"):
        functional_environment("CartPole-v1", {"render_mode": "rgb_array"})
    with pytest.raises(ValueError, match="rows: got 'many'; expected an integer >= 2"):
        functional_environment("polyak/Catch-v0", {"rows": "many"})


@pytest.mark.parametrize("name", ["FrozenLake-v1", "ALE/Pong-v5", "minigrid:MiniGrid-Empty-5x5-v0", "CartPole-v0", ""])
def test_a_name_without_a_functional_environment_is_none(name):
    assert functional_environment(name, {"any": 1}) is None


def test_a_wrong_name_of_polyak_names_those_that_exist():
    with pytest.raises(
        ValueError, match=r"got 'polyak/Catsh-v0'; expected .*polyak/Catch-v0.*Did you mean 'polyak/Catch"
    ):
        functional_environment("polyak/Catsh-v0")


@pytest.mark.parametrize("maker", ["small", "plain", "quoted"])
def test_a_maker_of_a_module(module, maker):
    assert functional_environment(f"{module}:{maker}").spec.observation.shape == (3, 5)
    assert functional_environment(f"{module}:{maker}", {"rows": 4}).spec.observation.shape == (4, 5)
    with pytest.raises(EnvironmentFailure, match=f"{maker}' could not be made with {{'rows': 1}}: ValueError: rows"):
        functional_environment(f"{module}:{maker}", {"rows": 1})
    misfit = {"small": ValueError, "quoted": ValueError, "plain": EnvironmentFailure}[maker]
    with pytest.raises(misfit, match=f"{maker}.*unexpected keyword|{maker} takes rows"):
        functional_environment(f"{module}:{maker}", {"size": 4})


def test_an_instance_of_a_module_takes_no_arguments(module):
    assert functional_environment(f"{module}:instance").spec.observation.shape == (7, 5)
    with pytest.raises(ValueError, match=r"env_kwargs: got {'rows': 3}, but my_functional:instance is an environment"):
        functional_environment(f"{module}:instance", {"rows": 3})


def test_other_objects_of_a_module_are_none_and_leave_nothing_open(module):
    for name in ("number", "Closing", "of_gymnasium", "Closing-v0"):
        assert functional_environment(f"{module}:{name}") is None
    assert sys.modules[module].calls == ["made", "closed"]
    with pytest.raises(ValueError, match=r"has no 'smal'.*Did you mean 'small'"):
        functional_environment(f"{module}:smal")


def test_objects_from_python():
    def local(rows=3):
        return tale(f"tale of {rows}")

    text, given = given_environment(local)
    assert functional_environment(text, {"rows": 5}, given).name == "tale of 5"
    text, given = given_environment(tale("mine"))
    assert text == "<mine>"
    assert functional_environment(text, {}, given) is given[text]
    text, given = given_environment(Story())
    assert functional_environment(text, {}, given) is None
    with pytest.raises(ValueError, match="the run was begun with mine"):
        functional_environment("<mine>")


def test_gymnax_is_imported_only_for_its_names():
    code = """
import sys
from polyak.experiments.environments.functional.names import functional_environment
functional_environment("CartPole-v1")
print([name for name in ("gymnax", "flax", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(
    importlib.util.find_spec("gymnax") is None, reason="needs the extra gymnax: pip install '.[gymnax]'"
)
def test_a_name_of_gymnax():
    found = functional_environment("gymnax/Breakout-MinAtar", {"max_steps_in_episode": 9})
    assert found.name == "gymnax/Breakout-MinAtar"
