"""Parts that no named agent joins: each combination trains, and resumes to the bit after an interrupt."""

import pytest

from polyak.experiments.runs import train as runs
from small_runs import assert_same_run, config_of, interrupt_at, records, silent

RECURRENT = {
    "core": "lstm",
    "lstm_size": 4,
    "burn_in": 2,
    "windows": "sequences",
    "sequence_length": 6,
    "sequence_period": 3,
}
COMBINATIONS = {
    "Munchausen, IQN, 3 steps": ("iqn", {"bootstrap": "munchausen", "n_steps": 3, "num_quantiles": 4}),
    "LSTM, quantiles": ("qr_dqn", {**RECURRENT, "num_quantiles": 5}),
    "LSTM, ensemble": ("bootstrapped_dqn", {**RECURRENT, "num_members": 3}),
    "LSTM, derived support, 2 steps": ("hl_gauss", {**RECURRENT, "num_atoms": 11, "n_steps": 2}),
    "annealed n and discount": ("dqn", {"n_steps": "linear(5,1,50%)", "discount": "linear(0.9,0.99,50%)"}),
    "target of the head alone": ("dqn", {"target": "periodic:20 q/torso=none"}),
    "prioritized sequences without a core": (
        "double_dqn",
        {"windows": "sequences", "sequence_length": 10, "sampling": "prioritized", "n_steps": "exponential(4,1,200)"},
    ),
    "self-prediction": (
        "qr_dqn",
        {"self_prediction": "mlp", "horizon": 3, "target": "periodic:20 encoder=incremental:0.1", "num_quantiles": 5},
    ),
    "LSTM, self-prediction, resets": (
        "r2d2",
        {**RECURRENT, "self_prediction": "mlp", "horizon": 2, "resets": "periodic", "reset_period": "40"},
    ),
    "resets": ("n_step_double_dqn", {"resets": "periodic", "reset_period": "60env", "n_steps": "linear(5,1,50%)"}),
}
IN_THE_SUITE = ("resets",)  # all in .ci/run


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_THE_SUITE else pytest.mark.slow) for name in COMBINATIONS]
)
def test_a_combination_trains_and_resumes_to_the_bit(name, tmp_path):
    agent, fields = COMBINATIONS[name]
    config = config_of(agent, steps=300, checkpoint_every=150, **fields)
    runs.train(config, tmp_path / "whole", silent, silent)
    assert runs.train(config, tmp_path / "parts", interrupt_at(200), silent) is None
    assert runs.resume(tmp_path / "parts", silent, silent) is not None
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    losses = [record["loss"] for record in records(tmp_path / "whole")]
    assert all(loss > 0 for loss in losses)
    assert len(set(losses)) == 3
