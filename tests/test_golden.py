"""The agents learn as those of 0.1.0 did (see helpers/golden.py)."""

import pytest

import golden
from polyak.agents import DQNConfig, dqn

CONFIGURATIONS = golden.configurations()
QUICK = ("dqn", "rainbow", "r2d2")  # the others are compiled and run by .ci/run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CONFIGURATIONS]
)
def test_losses_parameters_and_actions_are_those_of_0_1_0(name):
    configuration = CONFIGURATIONS[name]
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in configuration["fields"].items()}
    agent = dqn(DQNConfig(**fields), golden.spec(configuration), total_learner_steps=golden.STEPS)
    golden.assert_equal(golden.play(agent, configuration), golden.recorded(name))
