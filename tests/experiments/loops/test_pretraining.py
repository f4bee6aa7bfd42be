"""Loop of pretraining: diagnostics of the target."""

import functools

import jax
import numpy as np
import pytest

from polyak.agents.byol import make_byol
from polyak.agents.pretraining import BYOLConfig, Encoder, MLPPredictor, Projector
from polyak.experiments.loops.pretraining import advance, initial_pretrain_carry, pretraining_loop

OTHER_RULES = ["incremental:0.3", "periodic:2 target/projector=frozen", "none", "frozen"]


@pytest.mark.parametrize("rule", ["periodic:3", *(pytest.param(rule, marks=pytest.mark.slow) for rule in OTHER_RULES)])
def test_the_churn_of_the_target_is_the_change_of_its_features_in_a_gradient_step(rule):
    """By brute force: the features of the target before and after each step."""
    config = BYOLConfig(Encoder("mlp", (6,)), Projector(8, 4), MLPPredictor(8), target=rule, learning_rate=0.01)
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)
    byol = make_byol(config, jax.ShapeDtypeStruct(images.shape[1:], images.dtype), total_learner_steps=8)
    begin = functools.partial(initial_pretrain_carry, byol, jax.ShapeDtypeStruct((4, 4, 4, 1), images.dtype), 0)
    options = {"batch_size": 4, "steps": 8, "record_every": 4, "probe_every": 8, "yield_every": 8}
    loop = pretraining_loop(byol, images, begin(), **options, probe=lambda state: {}, stop=lambda: False)
    found = [record["target_churn/target"] for _, record in loop]
    carry, changes = begin(), []
    step_once, see = jax.jit(functools.partial(advance, byol, 4)), jax.jit(byol.encode_by_target)
    for _ in range(8):
        before, carry = see(carry.learner, images), step_once(carry, images)
        changes.append(float(np.mean(np.abs(see(carry.learner, images) - before))))
    if rule in ("incremental:0.3", "none"):
        wanted = [changes[3], changes[7]]
        assert min(wanted) > 0
    else:
        wanted = [sum(changes[:4]) / 4, sum(changes[4:]) / 4]
        assert (max(wanted) > 0) == rule.startswith("periodic")
    assert found == pytest.approx(wanted, rel=1e-4)
