"""The agents learn as those of 0.1.0 did (see helpers/golden.py)."""

import pytest

import golden
from polyak.agents import make_agent
from polyak.experiments.runs.version_0_1_0 import configs_from_0_1_0

pytestmark = pytest.mark.usefixtures("compiled_as_released")
CONFIGURATIONS = golden.configurations()
QUICK = ("dqn",)  # the others are compiled and run by .ci/run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CONFIGURATIONS]
)
def test_losses_parameters_and_actions_are_those_of_0_1_0(name):
    configuration = CONFIGURATIONS[name]
    config = configs_from_0_1_0(configuration["fields"]).agent
    agent = make_agent(config, golden.spec(configuration), total_learner_steps=golden.STEPS)
    golden.assert_equal(name, golden.play(agent, configuration), golden.recorded(name))
