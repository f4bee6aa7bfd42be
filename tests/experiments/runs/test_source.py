"""Environments and loop of a run: each loop with each kind of environment and each setting."""

import re

import gymnasium as gym
import pytest

from functional_environments import tale
from polyak.experiments.environments.functional.types import FunctionalEnvironment
from polyak.experiments.runs.config import make_run_config
from polyak.experiments.runs.source import source_of

TALE, PLAIN, OWN = "<tale>", "<plain>", "<Own>"
GIVEN = {TALE: tale(), PLAIN: tale(masks=False), OWN: lambda: gym.make("CartPole-v1")}
CARTPOLE, CATCH, FROZEN = "CartPole-v1", "polyak/Catch-v0", "FrozenLake-v1"


def found(**fields):
    """Loop and kind of the environments of a run."""
    source, loop = source_of(make_run_config("dqn", "classic", fields), GIVEN)
    return loop, "functional" if isinstance(source, FunctionalEnvironment) else "gymnasium"


@pytest.mark.parametrize(
    ("env", "host", "device", "auto"),
    [
        (CARTPOLE, "gymnasium", "functional", ("device", "functional")),
        (CATCH, "functional", "functional", ("device", "functional")),
        (TALE, "functional", "functional", ("device", "functional")),
        (FROZEN, "gymnasium", None, ("host", "gymnasium")),
        (OWN, "gymnasium", None, ("host", "gymnasium")),
    ],
)
def test_each_loop_has_the_environments_it_can_run(env, host, device, auto):
    assert found(env=env, loop="host") == ("host", host)
    assert found(env=env, loop="auto") == auto
    if device is not None:
        assert found(env=env, loop="device") == ("device", device)
        return
    text = f"loop: got 'device', but env {env!r} is not functional; expected CartPole-v1, "
    with pytest.raises(ValueError, match=rf"{re.escape(text)}.* Try --loop host\.$"):
        found(env=env, loop="device")


# Settings that only one kind of environment, or only one loop, can have. Of each: the error of a functional environment
# with the device loop, with the host loop if it is an error there too, and the outcomes of auto.
SETTINGS = {
    "wrappers": ({"wrappers": ("gymnasium.wrappers:FlattenObservation",)}, "wrappers: got gymnasium.wrappers:Fl", True),
    "workers": ({"workers": 1}, "workers: got 1 for the functional environment ", True),
    "mmap": ({"replay_storage": "mmap"}, "replay_storage: got 'mmap' with the device loop", False),
    "masks": ({"action_mask": True}, "action_mask: got True, but the functional environment ", True),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("env", [CARTPOLE, PLAIN])
def test_settings_that_a_functional_environment_cannot_have(env, setting):
    fields, message, on_host = SETTINGS[setting]
    fields = fields | {"env": env}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as error:
        found(loop="device", **fields)
    assert str(error.value).endswith("Try --loop host.") == (env == CARTPOLE)
    if env == CARTPOLE:  # has a Gymnasium environment too, which has them
        assert found(loop="host", **fields) == found(loop="auto", **fields) == ("host", "gymnasium")
    elif on_host:
        for loop in ("host", "auto"):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
                found(loop=loop, **fields)
    else:
        assert found(loop="host", **fields) == ("host", "functional")


@pytest.mark.parametrize("name", ["normalize_observations", "normalize_rewards"])
@pytest.mark.parametrize("env", [CARTPOLE, PLAIN])
def test_auto_leaves_normalization_to_the_host_loop(env, name):
    fields = {"env": env, name: True}
    assert found(loop="auto", **fields) == ("host", "functional")
    assert found(loop="host", **fields) == ("host", "gymnasium" if env == CARTPOLE else "functional")
    with pytest.raises(ValueError, match=f"{name}: got True with the device loop"):
        found(loop="device", **fields)


def test_masks_of_a_functional_environment_are_no_obstacle():
    for loop, wanted in (("host", "host"), ("device", "device"), ("auto", "device")):
        assert found(env=TALE, loop=loop, action_mask=True) == (wanted, "functional")


def test_arguments_that_only_gymnasium_knows():
    fields = {"env": CARTPOLE, "env_kwargs": '{"sutton_barto_reward": true, "render_mode": "rgb_array"}'}
    assert found(loop="host", **fields) == found(loop="auto", **fields) == ("host", "gymnasium")
    with pytest.raises(ValueError, match=r"env_kwargs: got .*render_mode.*; CartPole-v1 takes"):
        found(loop="device", **fields)


def test_a_misspelt_name_is_an_error_for_each_loop():
    for loop in ("host", "device", "auto"):
        with pytest.raises(ValueError, match=r"env: got 'polyak/Catch'; expected polyak/Catch-v0"):
            found(env="polyak/Catch", loop=loop)
