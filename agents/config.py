"""The config of the DQN family: one frozen dataclass; a variant is a head, a loss and a way to draw, chosen in it."""

import dataclasses
import numbers
from fractions import Fraction
from typing import Literal, get_args

from .. import networks
from .optimizers import OptimizerName, ScheduleName

TorsoChoice = Literal["auto", "mlp", "nature", "impala", "minatar"]
Augmentation = Literal["auto", "none", "shift", "shift_and_intensity"]
_COUNTS = {
    "num_atoms": 2,
    "num_quantiles": 1,
    "num_heads": 1,
    "lstm_size": 1,
    "n_steps": 1,
    "batch_size": 1,
    "frame_stack": 1,
    "sequence_length": 0,
    "burn_in": 0,
    "sequence_period": 1,
    "replay_capacity": 1,
    "learning_starts": 0,
    "train_every": 1,
    "learner_steps": 1,
}
_FRACTIONS = (
    "discount",
    "epsilon_initial",
    "epsilon_final",
    "epsilon_fraction",
    "mask_probability",
    "priority_exponent",
    "importance_exponent_initial",
    "importance_exponent_final",
)
_NOT_NEGATIVE = ("noisy_sigma", "prior_scale", "munchausen_weight", "munchausen_temperature")


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """Every number of an agent of the DQN family; the defaults are those of the quickstart on CartPole-v1.

    Attributes:
        hidden_sizes: units of each dense layer.
        torso: ``mlp``, ``nature`` (the convolutions of Mnih et al., 2015), ``impala`` (the residual ones of Espeholt et
            al., 2018), ``minatar`` (a single one, Young and Tian, 2019) or ``auto``: nature for images, else mlp.
        activation: of the dense layers.
        head: what the network gives for each action: ``q`` a value; ``categorical`` probabilities of fixed returns
            (C51); ``hl_gauss`` the same, learnt from a Gaussian around the target's value; ``quantile`` quantiles at
            fixed fractions (QR-DQN); ``implicit_quantile`` at drawn ones (IQN); ``ensemble`` several values
            (Bootstrapped DQN).
        dueling: whether the head has a stream for the value and one for the advantages.
        noisy: whether the last layers carry learnt noise, which explores; the agent is evaluated without it.
        noisy_sigma: the noise at the start; a layer of n inputs begins with noisy_sigma / sqrt(n).
        num_atoms: of the distribution (categorical, hl_gauss).
        v_min: the lowest return that the distribution can tell (categorical, hl_gauss).
        v_max: the highest one.
        num_quantiles: of the heads quantile and implicit_quantile; the latter draws as many fractions.
        num_heads: of an ensemble.
        mask_probability: the part of the steps that each head of an ensemble learns from.
        prior_scale: the weight of the fixed random network that is added to each head of an ensemble; 0: none.
        memory: ``lstm`` for an agent that remembers (R2D2), which learns from sequences; ``none``.
        lstm_size: units of the LSTM.
        double: whether the online network chooses the action whose target value is bootstrapped.
        loss: ``squared``, or ``huber`` (linear beyond an error of 1: a rare large error, such as that of a failure
            after a long episode, then weighs little); of the heads q and ensemble.
        value_rescaling: whether values are learnt as ``sign(x) * (sqrt(|x| + 1) - 1) + x / 1000``, with which rewards
            need no clipping (Pohlen et al., 2018); of the head q.
        munchausen: whether the reward gets the scaled log-probability of the action and the bootstrap value is soft
            (Munchausen-DQN); of the head q.
        munchausen_weight: of that log-probability.
        munchausen_temperature: of the policy whose log-probability it is.
        munchausen_clip: the lowest log-probability, times the temperature, that counts.
        augmentation: of image observations as the learner sees them: ``shift`` by up to 4 pixels (DrQ),
            ``shift_and_intensity``, ``none``; ``auto``: shift for images.
        discount: of the agent, per environment step, in [0, 1].
        n_steps: environment steps that a transition spans before it bootstraps.
        batch_size: transitions (or sequences) of a learner step.
        frame_stack: frames that are shown as one observation, built when drawn; the replay keeps each frame once.
        sequence_length: steps of a drawn sequence that are learnt from; 0: transitions are drawn.
        burn_in: steps before them that only bring the memory up to date; none where an episode begins.
        sequence_period: steps of an episode between two sequences that can be drawn.
        priority_exponent: 0 draws uniformly; else in proportion to this power of the priority, an error of a step or
            the largest and the mean of a sequence (Schaul et al., 2016).
        importance_exponent_initial: the power of the importance weights at the first step (with priorities).
        importance_exponent_final: the same at the last step; linear between them.
        optimizer: adam, adamw, rmsprop (centred) or sgd.
        optimizer_epsilon: the constant in the optimizer's denominator.
        learning_rate: at the first learner step.
        learning_rate_schedule: ``constant``, or falling to 0 over the run: ``linear``, ``cosine``.
        max_gradient_norm: the global norm to which gradients are clipped; None for no clipping.
        skip_nonfinite: whether a learner step that comes out NaN or infinite is undone and counted in the metric
            skipped; without it, such a step ends the run.
        target: the rule of the target network, such as periodic:500, incremental:0.005, frozen or none. Periods are
            learner steps; 500env is in environment steps.
        average: the rule of a Polyak average of the parameters to evaluate with, such as incremental:0.001; none: the
            online parameters are evaluated.
        replay_capacity: environment steps that are kept (the end of each episode takes one more).
        learning_starts: environment steps before the first learner step.
        train_every: environment steps between two rounds of learning.
        learner_steps: learner steps of a round, in one dispatch.
        epsilon_initial: the probability of a random action at the first step.
        epsilon_final: the same after the decay.
        epsilon_fraction: the part of all environment steps over which epsilon falls, linearly, in [0, 1].
        normalize_observations: whether observations are centred and divided by their standard deviation, element by
            element, and clipped to [-10, 10]; not for images, which the networks scale.
        normalize_rewards: whether rewards are divided by the standard deviation of the discounted return, and, summed
            over n_steps, clipped to [-10, 10].
    """

    hidden_sizes: tuple[int, ...] = (120, 84)
    torso: TorsoChoice = "auto"
    activation: networks.Activation = "relu"
    head: networks.HeadName = "q"
    dueling: bool = False
    noisy: bool = False
    noisy_sigma: float = 0.5
    num_atoms: int = 51
    v_min: float = -10.0
    v_max: float = 10.0
    num_quantiles: int = 64
    num_heads: int = 10
    mask_probability: float = 0.5
    prior_scale: float = 1.0
    memory: Literal["none", "lstm"] = "none"
    lstm_size: int = 64
    double: bool = True
    loss: Literal["huber", "squared"] = "squared"
    value_rescaling: bool = False
    munchausen: bool = False
    munchausen_weight: float = 0.9
    munchausen_temperature: float = 0.03
    munchausen_clip: float = -1.0
    augmentation: Augmentation = "none"
    discount: float = 0.99
    n_steps: int = 10
    batch_size: int = 128
    frame_stack: int = 1
    sequence_length: int = 0
    burn_in: int = 0
    sequence_period: int = 1
    priority_exponent: float = 0.0
    importance_exponent_initial: float = 0.4
    importance_exponent_final: float = 1.0
    optimizer: OptimizerName = "adam"
    optimizer_epsilon: float = 1e-8
    learning_rate: float = 1e-3
    learning_rate_schedule: ScheduleName = "linear"
    max_gradient_norm: float | None = None
    skip_nonfinite: bool = False
    target: str = "periodic:100"
    average: str = "none"
    replay_capacity: int = 20_000
    learning_starts: int = 1_000
    train_every: int = 4
    learner_steps: int = 2
    epsilon_initial: float = 1.0
    epsilon_final: float = 0.05
    epsilon_fraction: float = 0.25
    normalize_observations: bool = False
    normalize_rewards: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError where a number is out of range or two fields contradict each other.

        Rules of targets are read by :func:`dqn`.
        """
        if not isinstance(self.hidden_sizes, tuple | list):
            raise TypeError(f"hidden_sizes: got {self.hidden_sizes!r}; expected a size for each layer, such as (64,).")
        if not self.hidden_sizes:
            raise ValueError("hidden_sizes: got no layer; expected one or more. Give (64,), for example.")
        _check_numbers(self)
        _check_choices(self)
        _check_variant(self)
        _check_draws(self)

    @property
    def environment_steps_per_learner_step(self) -> Fraction:
        """What converts a target's period between environment and learner steps."""
        return Fraction(self.train_every, self.learner_steps)


def _check_numbers(config: DQNConfig) -> None:
    kinds = {bool: (bool, "True or False"), float: (numbers.Real, "a number"), str: (str, "a text")}
    for field in dataclasses.fields(config):
        kind, expected = kinds.get(type(field.default), (object, ""))
        value = getattr(config, field.name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind in (numbers.Real, str)):
            raise TypeError(f"{field.name}: got {value!r} ({type(value).__name__}); expected {expected}.")
    for name, lowest in _COUNTS.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected an integer >= {lowest}.")
        if value < lowest:
            raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}.")
    for name in _FRACTIONS:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name}: got {getattr(config, name)}; expected 0 <= {name} <= 1.")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(config, name) < float("inf"):
            raise ValueError(f"{name}: got {getattr(config, name)}; expected a finite number >= 0.")
    if not -float("inf") < config.v_min < config.v_max < float("inf"):
        raise ValueError(
            f"v_min: got {config.v_min}, and v_max is {config.v_max}; expected finite numbers, v_min < v_max. Give the "
            "lowest and the highest discounted return that an episode can have."
        )
    if config.munchausen and not config.munchausen_temperature > 0:
        raise ValueError(f"munchausen_temperature: got {config.munchausen_temperature}; expected a number > 0.")
    if not config.munchausen_clip <= 0:
        raise ValueError(f"munchausen_clip: got {config.munchausen_clip}; expected a number <= 0, such as -1.")
    if config.mask_probability == 0:
        raise ValueError("mask_probability: got 0.0, with which no head learns; expected a number in (0, 1].")


def _check_choices(config: DQNConfig) -> None:
    choices = {
        "torso": TorsoChoice,
        "head": networks.HeadName,
        "memory": Literal["none", "lstm"],
        "loss": Literal["huber", "squared"],
        "augmentation": Augmentation,
    }
    for name, choice in choices.items():
        allowed = get_args(choice)
        if getattr(config, name) not in allowed:
            expected = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
            raise ValueError(f"{name}: got {getattr(config, name)!r}; expected {expected}.")


def _check_variant(config: DQNConfig) -> None:
    """Refuses what one part of a variant does not do with another, rather than passing over it."""
    head = config.head
    refused = [
        ("dueling", config.dueling and head == "ensemble", "an ensemble has no streams. Try --no-dueling"),
        ("noisy", config.noisy and head == "ensemble", "an ensemble explores by its heads. Try --no-noisy"),
        (
            "noisy",
            config.noisy and config.memory != "none",
            "the recurrent network has no noisy layers. Try --no-noisy",
        ),
        ("head", config.memory != "none" and head != "q", "the recurrent agent learns values. Try --head q"),
        ("munchausen", config.munchausen and head != "q", "it is a loss of values. Try --head q"),
        (
            "munchausen",
            config.munchausen and config.memory != "none",
            "it learns from transitions, and the agent has a memory. Try --no-munchausen",
        ),
        (
            "munchausen",
            config.munchausen and config.value_rescaling,
            "value_rescaling sets the bootstrap target too. Try --no-value-rescaling",
        ),
        (
            "munchausen",
            config.munchausen and config.double,
            "its bootstrap value is soft and chooses no action. Try --no-double",
        ),
        (
            "munchausen",
            config.munchausen and config.n_steps > 1,
            f"it is defined over single steps and n_steps is {config.n_steps}. Try --n-steps 1",
        ),
        ("value_rescaling", config.value_rescaling and head != "q", "it is of values. Try --head q"),
        (
            "loss",
            config.loss == "huber" and head not in ("q", "ensemble"),
            f"the head {head} has a loss of its own. Try --loss squared, the default",
        ),
        (
            "normalize_observations",
            config.normalize_observations and config.frame_stack > 1,
            "frames that are stacked are images, which the networks scale. Try --no-normalize-observations",
        ),
        (
            "optimizer",
            config.optimizer == "adamw" and head == "ensemble",
            "its decay would move the fixed prior. Try --optimizer adam",
        ),
    ]
    for name, refuse, reason in refused:
        if refuse:
            raise ValueError(f"{name}: got {getattr(config, name)!r}, but {reason}.")


def _check_draws(config: DQNConfig) -> None:
    for name in ("n_steps", "batch_size", "sequence_length"):
        if getattr(config, name) > config.replay_capacity:
            raise ValueError(
                f"{name}: got {getattr(config, name)}; expected at most replay_capacity, {config.replay_capacity}."
            )
    if config.memory != "none" and not config.sequence_length:
        raise ValueError(
            f"memory: got {config.memory!r} and sequence_length 0, which draws single transitions; an agent that "
            "remembers learns from sequences. Try --sequence-length 20, or --memory none --burn-in 0 --sequence-period "
            "1."
        )
    if config.memory == "none" and config.sequence_length:
        raise ValueError(
            f"sequence_length: got {config.sequence_length}, and the agent has no memory; expected 0, which draws "
            "transitions. Try --sequence-length 0 --burn-in 0 --sequence-period 1, or --memory lstm to remember."
        )
    if config.sequence_length and config.n_steps > config.sequence_length:
        raise ValueError(
            f"n_steps: got {config.n_steps}; expected at most sequence_length, {config.sequence_length}, within which "
            f"returns are summed. Try --sequence-length {config.n_steps}, or fewer steps."
        )
    length = config.burn_in + config.sequence_length
    if length > config.replay_capacity:
        raise ValueError(
            f"burn_in: got {config.burn_in} beside sequence_length {config.sequence_length}; expected together at most "
            f"replay_capacity, {config.replay_capacity}."
        )
    if config.sequence_period > max(config.sequence_length, 1):
        raise ValueError(
            f"sequence_period: got {config.sequence_period}; expected at most sequence_length, "
            f"{config.sequence_length} (1 without sequences), or steps between two sequences would never be learnt "
            f"from. Try --sequence-period {max(config.sequence_length, 1)}."
        )
    if config.burn_in and not config.sequence_length:
        raise ValueError(
            f"burn_in: got {config.burn_in} and sequence_length 0; it is a part of a sequence. Try --burn-in 0."
        )
