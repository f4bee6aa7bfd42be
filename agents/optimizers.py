"""Make the optimizers of an agent and of BYOL from their configs."""

from typing import Any

import jax
import optax

from .config import AgentConfig
from .optimizer_parts import SGD, Adam, AdamW, RMSProp
from .pretraining import LARS, BYOLConfig
from .schedules import Schedule


def make_optimizer(
    config: AgentConfig, total_learner_steps: int | None = None, learning_rate: jax.Array | None = None
) -> optax.GradientTransformation:
    """Make the optimizer of an agent: gradient clipping, learning-rate schedule, and the predictor's own rate.

    Args:
        config: Config of the agent.
        total_learner_steps: Number of learner steps of the run, for schedules over a fraction of it.
        learning_rate: Learning rate in place of that of the config, which may be traced.

    Raises:
        ValueError: if the learning rate changes over a fraction of the run and ``total_learner_steps`` is not given.

    >>> from polyak.agents.config import AgentConfig
    >>> optimizer = make_optimizer(AgentConfig(learning_rate="linear(0.001,0,100%)"), total_learner_steps=100)
    """
    rate: Any = learning_rate
    if rate is None:
        rate = learning_rate_of(config.learning_rate, total_learner_steps)
    rule = config.optimizer
    if isinstance(rule, Adam):
        optimizer = optax.adam(rate, eps=rule.optimizer_epsilon)
    elif isinstance(rule, AdamW):
        optimizer = optax.adamw(rate, eps=rule.optimizer_epsilon, weight_decay=rule.weight_decay, mask=_decays)
    elif isinstance(rule, RMSProp):
        optimizer = optax.rmsprop(rate, decay=0.95, eps=rule.optimizer_epsilon, centered=True)
    else:
        assert isinstance(rule, SGD)
        optimizer = optax.sgd(rate)
    parts = [optimizer]
    if config.max_gradient_norm is not None:
        parts = [optax.clip_by_global_norm(config.max_gradient_norm), *parts]
    if config.self_prediction is not None and config.self_prediction.predictor_rate != 1:
        parts.append(optax.masked(optax.scale(config.self_prediction.predictor_rate), _is_predictor))
    return optax.chain(*parts)


def make_byol_optimizer(config: BYOLConfig, total_learner_steps: int | None = None) -> optax.GradientTransformation:
    """Make the optimizer of BYOL with its learning-rate schedule; biases and BatchNorm are not decayed.

    Args:
        config: Config of BYOL.
        total_learner_steps: Number of gradient steps of the run, for schedules over a fraction of it.

    Raises:
        ValueError: if the learning rate changes over a fraction of the run and ``total_learner_steps`` is not given.

    >>> optimizer = make_byol_optimizer(BYOLConfig(optimizer=LARS()), total_learner_steps=100)
    """
    rate, rule = learning_rate_of(config.learning_rate, total_learner_steps), config.optimizer
    if isinstance(rule, LARS):
        return optax.lars(
            rate,
            weight_decay=rule.weight_decay,
            weight_decay_mask=_decays,
            trust_coefficient=rule.trust_coefficient,
            trust_ratio_mask=_decays,
            momentum=rule.momentum,
        )
    return optax.adamw(rate, eps=rule.optimizer_epsilon, weight_decay=rule.weight_decay, mask=_decays)


def _decays(params: Any) -> Any:
    """Return a mask of the leaves with weight decay: matrices and kernels, but not biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _is_predictor(params: Any) -> Any:
    """Return a mask of the leaves of the transition model and the predictor."""
    of_predictor = {module: module.split("/")[0] in ("transition", "predictor") for module in params}
    return {module: dict.fromkeys(leaves, of_predictor[module]) for module, leaves in params.items()}


def learning_rate_of(schedule: Schedule, total_learner_steps: int | None) -> optax.ScalarOrSchedule:
    """Convert a learning rate to optax: a number, or a function of the learner step.

    Args:
        schedule: Learning rate in a config.
        total_learner_steps: Number of learner steps of the run, for schedules over a fraction of it.

    Raises:
        ValueError: if the learning rate changes over a fraction of the run and ``total_learner_steps`` is not given, or
            if a cosine begins at 0.

    >>> round(float(learning_rate_of(Schedule.of("linear(0.001,0,100%)"), 10)(5)), 6)
    0.0005
    """
    initial, final = schedule.initial, schedule.final
    if final is None:
        return initial
    if schedule.relative and (total_learner_steps is None or total_learner_steps < 1):
        raise ValueError(
            f"learning_rate: got {schedule}, which changes over the learner steps of the run, and total_learner_steps "
            f"is {total_learner_steps}; expected an integer >= 1."
        )
    steps = max(round(schedule.over * (total_learner_steps or 0) if schedule.relative else schedule.over), 1)
    if schedule.kind == "linear":
        return optax.linear_schedule(initial, final, steps)
    if schedule.kind == "exponential":
        return optax.exponential_decay(initial, steps, final / initial, end_value=final)
    if initial <= 0:
        raise ValueError(f"learning_rate: got {schedule}; expected a cosine that begins above 0. Try linear.")
    return optax.cosine_decay_schedule(initial, steps, alpha=final / initial)
