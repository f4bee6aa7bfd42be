"""Every agent resumes to the bit after an interrupt."""

import pytest

from polyak.agents import AGENTS, make_configs
from polyak.agents.parts import leaves
from polyak.experiments.loops.learning import AGREEMENT, CHURN
from polyak.experiments.runs import train as runs
from small_runs import assert_same_run, config_of, interrupt_at, records, silent

SIZES = {"hidden_sizes": (8, 8), "num_atoms": 5, "num_quantiles": 3, "num_members": 3, "lstm_size": 4}
SIZES |= {"shift_every": "20", "sequence_length": 5, "burn_in": 2, "sequence_period": 3}
RESUMED = ["prioritized_dqn"]  # in the suite; the other agents in .ci/run
TARGETS = ["periodic:10", "incremental:0.01", None]  # in turn; None: the agent's own


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, TARGETS[number % 3], marks=() if name in RESUMED else pytest.mark.slow)
        for number, name in enumerate(AGENTS)
    ],
)
def test_runs_are_resumed_to_the_bit(name, target, tmp_path):
    present = leaves(make_configs(name))
    fields = {"steps": 240, "log_every": 60, "checkpoint_every": 60, "evaluation_episodes": 1, "num_envs": 2}
    fields |= {"learning_starts": 60, "replay_capacity": 150, "train_every": 4, "learner_steps": 2}
    fields |= {leaf: size for leaf, size in SIZES.items() if leaf in present}
    config = config_of(name, **fields, **({} if target is None else {"target": target}))
    assert runs.train(config, tmp_path / "parts", interrupt_at(120), silent) is None
    result = runs.resume(tmp_path / "parts", silent, silent)
    assert runs.train(config, tmp_path / "whole", silent, silent) == result
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    last = records(tmp_path / "whole")[-1]
    assert 0 <= last[CHURN] <= 1
    assert 0 <= last[AGREEMENT] <= 1
    assert last["learner_steps"] > 0
