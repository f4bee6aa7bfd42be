"""The optimizer of an agent, from the fields of its config."""

from typing import Literal, Protocol

import optax

OptimizerName = Literal["adam", "adamw", "rmsprop", "sgd"]
ScheduleName = Literal["constant", "linear", "cosine"]


class OptimizerConfig(Protocol):
    """The fields of a config that make an optimizer."""

    @property
    def optimizer(self) -> OptimizerName:
        """Which optimizer."""

    @property
    def optimizer_epsilon(self) -> float:
        """The constant in its denominator."""

    @property
    def learning_rate(self) -> float:
        """The learning rate at the first learner step."""

    @property
    def learning_rate_schedule(self) -> ScheduleName:
        """What becomes of the learning rate over the run."""

    @property
    def max_gradient_norm(self) -> float | None:
        """The global norm to which gradients are clipped."""


def make_optimizer(config: OptimizerConfig, total_learner_steps: int | None) -> optax.GradientTransformation:
    """Clipping by global norm, then the optimizer under its learning-rate schedule.

    Args:
        config: names and numbers.
        total_learner_steps: what ``linear`` and ``cosine`` fall to 0 over.

    Raises:
        ValueError: an unknown name, a number out of range, or a schedule without ``total_learner_steps``.

    >>> from polyak.agents import DQNConfig
    >>> optimizer = make_optimizer(DQNConfig(learning_rate_schedule="linear"), total_learner_steps=100)
    """
    for name in ("learning_rate", "optimizer_epsilon", "max_gradient_norm"):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name}: got {value}; expected a finite number > 0.")
    optimizers = {
        "adam": lambda rate: optax.adam(rate, eps=config.optimizer_epsilon),
        "adamw": lambda rate: optax.adamw(rate, eps=config.optimizer_epsilon),
        # Centred, as DQN's authors had it.
        "rmsprop": lambda rate: optax.rmsprop(rate, decay=0.95, eps=config.optimizer_epsilon, centered=True),
        "sgd": optax.sgd,
    }
    if config.optimizer not in optimizers:
        raise ValueError(f"optimizer: got {config.optimizer!r}; expected one of {', '.join(optimizers)}.")
    transforms = [optimizers[config.optimizer](_learning_rate(config, total_learner_steps))]
    if config.max_gradient_norm is not None:
        transforms.insert(0, optax.clip_by_global_norm(config.max_gradient_norm))
    return optax.chain(*transforms)


def _learning_rate(config: OptimizerConfig, total_learner_steps: int | None) -> optax.ScalarOrSchedule:
    if config.learning_rate_schedule == "constant":
        return config.learning_rate
    if config.learning_rate_schedule not in ("linear", "cosine"):
        raise ValueError(
            f"learning_rate_schedule: got {config.learning_rate_schedule!r}; expected constant, linear or cosine."
        )
    if total_learner_steps is None or total_learner_steps < 1:
        raise ValueError(
            f"learning_rate_schedule: {config.learning_rate_schedule!r} falls over the learner steps of the run, and "
            f"total_learner_steps is {total_learner_steps}; expected an integer >= 1."
        )
    if config.learning_rate_schedule == "linear":
        return optax.linear_schedule(config.learning_rate, 0.0, total_learner_steps)
    return optax.cosine_decay_schedule(config.learning_rate, total_learner_steps)
