"""Config of a loop: replay and sampling, cadence of learning, exploration and normalization.

The module imports nothing heavy.
"""

import dataclasses
from fractions import Fraction
from typing import Literal

from .fields import Part, Range, at_least, one_of, scheduled, unit
from .schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Transitions(Part):
    """Transitions: an action, the rewards of n_steps steps, and the observation after them."""


@dataclasses.dataclass(frozen=True)
class Sequences(Part):
    """Sequences of steps of one episode; n-step returns are summed within a sequence.

    Attributes:
        sequence_length: Number of steps of a sequence to learn from, without the burn-in.
        sequence_period: Number of steps between the possible starts of two sequences in an episode.
    """

    sequence_length: int = at_least(1, 20)
    sequence_period: int = at_least(1, 10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_period > self.sequence_length:
            raise ValueError(
                f"sequence_period: got {self.sequence_period}; expected at most sequence_length, "
                f"{self.sequence_length}, because the steps between two sequences would never be learnt from. Try "
                f"--sequence-period {self.sequence_length}."
            )


@dataclasses.dataclass(frozen=True)
class Uniform(Part):
    """Uniform sampling."""


@dataclasses.dataclass(frozen=True)
class Prioritized(Part):
    """Prioritized sampling (Schaul et al., 2016).

    Attributes:
        priority_exponent: Exponent of the priority in the sampling probability. The priority is the error of a
            transition, or 0.9 * largest + 0.1 * mean of the errors of a sequence.
        importance_exponent: Exponent of the importance-sampling weights, a number or a schedule.
    """

    priority_exponent: float = unit(0.6)
    importance_exponent: Schedule = scheduled("linear(0.4,1,100%)", Range(0, 1), restarts=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.priority_exponent == 0:
            raise ValueError("priority_exponent: got 0.0, which is uniform sampling. Try --sampling uniform.")


@dataclasses.dataclass(frozen=True)
class Draw(Part):
    """Sampling from the replay.

    Attributes:
        batch_size: Number of transitions or sequences in the batch of a learner step.
        n_steps: Number of environment steps in an n-step return, a number or a schedule.
        discount: Discount factor per environment step, a number or a schedule.
        windows: Type of the sampled windows: transitions or sequences.
        sampling: Sampling distribution over the windows: uniform or prioritized.
    """

    batch_size: int = at_least(1, 128)
    n_steps: Schedule = scheduled(1, Range(1), whole=True, restarts=True)
    discount: Schedule = scheduled(0.99, Range(0, 1), restarts=True)
    windows: Transitions | Sequences = one_of({"transitions": Transitions, "sequences": Sequences}, Transitions())
    sampling: Uniform | Prioritized = one_of({"uniform": Uniform, "prioritized": Prioritized}, Uniform())

    @property
    def schedules(self) -> dict[str, Schedule]:
        """Mapping from name to schedule of the scheduled numbers."""
        found = {"n_steps": self.n_steps, "discount": self.discount}
        if isinstance(self.sampling, Prioritized):
            found["importance_exponent"] = self.sampling.importance_exponent
        return found

    @property
    def most_steps(self) -> int:
        """Largest value of n_steps in a run.

        >>> Draw(n_steps="exponential(10,3,10000)").most_steps
        10
        """
        return round(self.n_steps.extremes[1])


@dataclasses.dataclass(frozen=True)
class ReplayConfig(Part):
    """Capacity of the replay and frame stacking.

    Attributes:
        replay_capacity: Number of environment steps that the replay holds (each episode's end takes one more).
        frame_stack: Number of frames stacked into one observation; the replay stores each frame once.
    """

    replay_capacity: int = at_least(1, 20_000)
    frame_stack: int = at_least(1, 1)


@dataclasses.dataclass(frozen=True)
class Cadence(Part):
    """Cadence of learning.

    Attributes:
        learning_starts: Number of environment steps before the first learner step.
        train_every: Number of environment steps between two rounds of learning.
        learner_steps: Number of learner steps in a round, all in one dispatch.
    """

    learning_starts: int = at_least(0, 1_000)
    train_every: int = at_least(1, 4)
    learner_steps: int = at_least(1, 2)


@dataclasses.dataclass(frozen=True)
class Exploration(Part):
    """Epsilon-greedy exploration.

    Attributes:
        epsilon: Probability of a random action, a number or a schedule.
    """

    epsilon: Schedule = scheduled("linear(1,0.02,25%)", Range(0, 1))


@dataclasses.dataclass(frozen=True)
class Normalization(Part):
    """Normalization of observations and rewards.

    Attributes:
        normalize_observations: Whether to normalize each element of the observations by its running mean and standard
            deviation, and clip it to [-10, 10]; not for images, which the networks scale.
        normalize_rewards: Whether to divide rewards by the standard deviation of the discounted return, and clip their
            n-step sums to [-10, 10].
    """

    normalize_observations: bool = False
    normalize_rewards: bool = False


@dataclasses.dataclass(frozen=True)
class LoopConfig(Part):
    """Config of a loop.

    Attributes:
        draw: Sampling from the replay.
        replay: Capacity of the replay and frame stacking.
        cadence: Cadence of learning.
        exploration: Epsilon-greedy exploration.
        normalization: Normalization of observations and rewards.
        loop: Loop that trains: host for any environment, device for a functional environment that is compiled together
            with replay and learning, or auto for device wherever it can run the config.
    """

    draw: Draw = Draw()
    replay: ReplayConfig = ReplayConfig()
    cadence: Cadence = Cadence()
    exploration: Exploration = Exploration()
    normalization: Normalization = Normalization()
    loop: Literal["host", "device", "auto"] = "host"

    def __post_init__(self) -> None:
        """Check the fields, and parts that exclude each other."""
        super().__post_init__()
        if self.loop == "device":
            check_on_device(self.normalization)
        capacity = self.replay.replay_capacity
        for name, value in (("n_steps", self.draw.most_steps), ("batch_size", self.draw.batch_size)):
            if value > capacity:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{name}: got {value}; expected at most replay_capacity, {capacity}. Try --replay-capacity "
                    f"{value}, or {flag} {capacity}."
                )
        windows = self.draw.windows
        if isinstance(windows, Sequences) and self.draw.most_steps > windows.sequence_length:
            raise ValueError(
                f"n_steps: got {self.draw.n_steps}; expected at most sequence_length, {windows.sequence_length}, "
                f"within which returns are summed. Try --sequence-length {self.draw.most_steps}, or fewer steps."
            )
        if self.normalization.normalize_observations and self.replay.frame_stack > 1:
            raise ValueError(
                "normalize_observations: got True, but stacked frames are images, which the networks scale. "
                "Try --no-normalize-observations."
            )

    @property
    def environment_steps_per_learner_step(self) -> Fraction:
        """Number of environment steps per learner step, which converts periods in environment steps."""
        return Fraction(self.cadence.train_every, self.cadence.learner_steps)

    @property
    def prioritized(self) -> bool:
        """Whether sampling is prioritized."""
        return isinstance(self.draw.sampling, Prioritized)


def check_on_device(normalization: Normalization) -> None:
    """Check that the device loop can run a config with this normalization.

    Raises:
        ValueError: if observations or rewards are normalized.

    >>> check_on_device(Normalization())
    """
    for name in ("normalize_observations", "normalize_rewards"):
        if getattr(normalization, name):
            raise ValueError(
                f"{name}: got True with the device loop; its statistics are kept in float64, which only the host loop "
                f"has. Try --loop host, or --no-{name.replace('_', '-')}."
            )
