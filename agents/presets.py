"""The agents by name: each is the config of its paper's variant, with numbers that suit CartPole-v1.

What differs between them stands here and nowhere else; ``polyak agents`` says how each differs from its paper.
"""

import dataclasses
from collections.abc import Mapping

from .config import DQNConfig

_QUICKSTART = DQNConfig()
_ONE_STEP = dataclasses.replace(_QUICKSTART, double=False, n_steps=1)
_DISTRIBUTION = {"num_atoms": 51, "v_min": 0.0, "v_max": 100.0}
_SMALLER_STEPS = {"batch_size": 64, "learner_steps": 4, "learning_rate": 5e-4}
# Random for the first steps, or a run may begin with one action alone and never see another.
_NOISY = {"noisy": True, "noisy_sigma": 0.1, "epsilon_final": 0.0, "epsilon_fraction": 0.02}


def _one_step(**fields: object) -> DQNConfig:
    return dataclasses.replace(_ONE_STEP, **fields)  # type: ignore[arg-type]


AGENTS: Mapping[str, DQNConfig] = {
    "dqn": _QUICKSTART,
    "double_dqn": _one_step(double=True, **_SMALLER_STEPS),
    "dueling_dqn": _one_step(double=True, dueling=True, learning_rate=5e-4),
    "n_step_dqn": _one_step(n_steps=5),
    "prioritized_dqn": _one_step(double=True, priority_exponent=0.6, **_SMALLER_STEPS),
    "c51": _one_step(head="categorical", learning_rate=5e-4, **_DISTRIBUTION),
    "qr_dqn": _one_step(head="quantile", num_quantiles=50),
    "iqn": _one_step(head="implicit_quantile", num_quantiles=8),
    "noisy_dqn": _one_step(**_NOISY),
    "rainbow": _one_step(
        head="categorical",
        double=True,
        dueling=True,
        n_steps=3,
        priority_exponent=0.5,
        **_NOISY,
        **_DISTRIBUTION,
    ),
    "munchausen_dqn": _one_step(munchausen=True, **_SMALLER_STEPS),
    # Near the ends of the support a histogram's mean is not the value that it stands for.
    "hl_gauss": _one_step(head="hl_gauss", num_atoms=51, v_min=-5.0, v_max=105.0),
    "bootstrapped_dqn": _one_step(head="ensemble", double=True, epsilon_initial=0.0, epsilon_final=0.0),
    "r2d2": _one_step(
        memory="lstm",
        double=True,
        dueling=True,
        value_rescaling=True,
        n_steps=5,
        batch_size=32,
        sequence_length=20,
        burn_in=10,
        sequence_period=10,
        priority_exponent=0.9,
        importance_exponent_initial=0.6,
        importance_exponent_final=0.6,
        train_every=8,
        learner_steps=1,
    ),
    "drq": dataclasses.replace(_QUICKSTART, dueling=True, augmentation="auto"),
}
