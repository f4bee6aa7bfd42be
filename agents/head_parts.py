"""Config parts of the heads. The module imports nothing heavy."""

import dataclasses
from typing import Literal

from .fields import Part, Range, at_least, number

Error = Literal["squared", "huber"]
GIVE_SUPPORT = "Give the lowest and the highest discounted return of an episode: --v-min and --v-max."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Streams(Part):
    """Last layers of a head.

    Attributes:
        dueling: Whether to split the head into a value stream and an advantage stream (Wang et al., 2016).
        noisy_sigma: Initial scale of the learnt exploration noise in the last layers (Fortunato et al., 2018); None
            disables the noise. A layer with n inputs starts at noisy_sigma / sqrt(n). Evaluation is without noise.
    """

    dueling: bool = False
    noisy_sigma: float | None = at_least(0, None)


@dataclasses.dataclass(frozen=True)
class Support(Part):
    """Support of a return distribution.

    Attributes:
        num_atoms: Number of atoms or bins of the support.
        v_min: Lowest return of the support: the first atom, or the lower edge of the first bin; None derives it from
            the rewards of the first steps.
        v_max: Highest return of the support: the last atom, or the upper edge of the last bin; None derives it from
            the rewards of the first steps.
    """

    num_atoms: int = at_least(2, 51)
    v_min: float | None = number(None)
    v_max: float | None = number(None)

    def __post_init__(self) -> None:
        """Check the fields, and that both ends of the support are numbers or both are None."""
        super().__post_init__()
        if (self.v_min is None) != (self.v_max is None):
            raise ValueError(
                f"v_min: got {self.v_min}, and v_max is {self.v_max}; expected numbers for both, or None for both. "
                f"{GIVE_SUPPORT}"
            )
        if self.v_min is not None and self.v_max is not None and not self.v_min < self.v_max:
            raise ValueError(
                f"v_min: got {self.v_min}, and v_max is {self.v_max}; expected v_min < v_max. {GIVE_SUPPORT}"
            )


@dataclasses.dataclass(frozen=True)
class Scalar(Streams):
    """Scalar head: one Q-value per action (DQN).

    Attributes:
        error: Loss of the TD error: squared, or huber, which is linear beyond an error of 1.
        value_rescaling: Whether to learn rescaled values, sign(x) * (sqrt(abs(x) + 1) - 1) + x / 1000, so that rewards
            need no clipping (Pohlen et al., 2018).
    """

    error: Error = "squared"
    value_rescaling: bool = False


@dataclasses.dataclass(frozen=True)
class Categorical(Streams, Support):
    """Categorical head: probabilities of fixed returns, the atoms (C51, Bellemare et al., 2017)."""


@dataclasses.dataclass(frozen=True)
class HLGauss(Streams, Support):
    """Histogram head, trained on a Gaussian around the bootstrap target (HL-Gauss, Farebrother et al., 2024)."""


@dataclasses.dataclass(frozen=True)
class Quantile(Streams):
    """Quantile head: quantiles of the return at fixed fractions (QR-DQN, Dabney et al., 2018a).

    Attributes:
        num_quantiles: Number of quantiles.
    """

    num_quantiles: int = at_least(1, 50)


@dataclasses.dataclass(frozen=True)
class ImplicitQuantile(Streams):
    """Implicit quantile head: quantiles of the return at sampled fractions (IQN, Dabney et al., 2018b).

    Attributes:
        num_quantiles: Number of fractions sampled per observation; acting uses the same number of evenly spaced
            fractions.
    """

    num_quantiles: int = at_least(1, 8)


@dataclasses.dataclass(frozen=True)
class Ensemble(Part):
    """Ensemble head: Q-values of several members; one member acts during an episode.

    Bootstrapped DQN, Osband et al., 2016.

    Attributes:
        num_members: Number of ensemble members.
        mask_probability: Probability that a member learns from a step.
        prior_scale: Weight of the fixed random prior network in each member (Osband et al., 2018), or 0 for no prior.
        error: Loss of the TD error: squared, or huber, which is linear beyond an error of 1.
    """

    num_members: int = at_least(1, 10)
    mask_probability: float = number(0.5, Range(0, 1, exclusive=True))
    prior_scale: float = at_least(0, 1.0)
    error: Error = "squared"


@dataclasses.dataclass(frozen=True)
class Iterated(Part):
    """Chain of heads, each of which learns from the head before it (iS-DQN, Vincent et al., 2026).

    Head 0 is frozen. The heads move down by one place at a fixed period: head k becomes a copy of head k + 1.

    Attributes:
        num_iterations: Number of heads that learn (K), each of which is one iteration of the Bellman operator further
            than the head before it. The network has one more head, which is frozen.
        shift_every: Period of the shift of the heads in learner steps, such as 200, or in environment steps, such as
            8000env.
        shift_moments: Whether a shift of the heads also moves the optimizer's moments of their parameters.
        error: Loss of the TD error: squared, or huber, which is linear beyond an error of 1.
    """

    num_iterations: int = at_least(1, 3)
    shift_every: str = "200"
    shift_moments: bool = False
    error: Error = "squared"


Head = Scalar | Categorical | HLGauss | Quantile | ImplicitQuantile | Ensemble | Iterated


def check_bounded(discount: float) -> None:
    """Check that returns are bounded, so that a support can be derived from rewards.

    Raises:
        ValueError: if the discount is not in [0, 1).

    >>> check_bounded(0.99)
    """
    if not 0 <= discount < 1:
        raise ValueError(
            f"v_min: got None with a discount of {discount}, under which returns have no bound. {GIVE_SUPPORT}"
        )
