"""Config of an agent: parts, each a frozen dataclass; where one of several is chosen, a union of parts.

It imports nothing heavy, so that help and the table of agents do not wait for JAX. The config of a loop is in
:mod:`polyak.agents.loop_config`.
"""

import dataclasses
from typing import Literal

from .fields import Part, Range, above, at_least, number, one_of, scheduled, unit
from .optimizer_parts import SGD, Adam, AdamW, RMSProp
from .schedules import Schedule

Error = Literal["squared", "huber"]
GIVE_SUPPORT = "Give the lowest and the highest discounted return of an episode: --v-min and --v-max."


@dataclasses.dataclass(frozen=True)
class LSTM(Part):
    """Recurrent core (R2D2): an LSTM between torso and head, trained on sequences with stored recurrent state.

    Attributes:
        lstm_size: Number of units.
        burn_in: Number of steps before those that are learnt from, which only bring the recurrent state up to date; no
            step is burnt in where a sequence begins with its episode.
    """

    lstm_size: int = at_least(1, 64)
    burn_in: int = at_least(0, 0)


@dataclasses.dataclass(frozen=True)
class Network(Part):
    """Torso and core of the network.

    Attributes:
        torso: Layers below the head: mlp, nature (convolutions of Mnih et al., 2015), impala (residual ones of Espeholt
            et al., 2018), minatar (a single one, Young and Tian, 2019), small (three of 3x3, for small images), or
            auto, which is nature for images, else mlp.
        torso_width: Factor of the number of filters of each convolution of the torso.
        hidden_sizes: Number of units of each dense layer.
        activation: Activation function of the dense layers.
        normalize_features: Whether the features of an observation, the output of the torso, are scaled to [0, 1] by
            their smallest and their largest (SPR).
        core: Recurrent core, or none.
    """

    torso: Literal["auto", "mlp", "nature", "impala", "minatar", "small"] = "auto"
    torso_width: int = at_least(1, 1)
    hidden_sizes: tuple[int, ...] = at_least(1, (120, 84))
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"] = "relu"
    normalize_features: bool = False
    core: LSTM | None = one_of({"none": None, "lstm": LSTM}, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Streams(Part):
    """Last layers of a head.

    Attributes:
        dueling: Whether the head has a stream for the value and one for the advantages (Wang et al., 2016).
        noisy_sigma: Initial scale of the learnt noise in the last layers, which explores (Fortunato et al., 2018); a
            layer of n inputs begins with noisy_sigma / sqrt(n). None for no noise. Evaluation is without noise.
    """

    dueling: bool = False
    noisy_sigma: float | None = at_least(0, None)


@dataclasses.dataclass(frozen=True)
class Support(Part):
    """Support of a distribution of returns.

    Attributes:
        num_atoms: Number of atoms, or of bins.
        v_min: Lowest return of the support: the first atom, or the lower edge of the first bin; None derives it from
            the rewards of the first steps.
        v_max: Highest return of the support: the last atom, or the upper edge of the last bin; None derives it as well.
    """

    num_atoms: int = at_least(2, 51)
    v_min: float | None = number(None)
    v_max: float | None = number(None)

    def __post_init__(self) -> None:
        """Check the fields, and that both ends are given or neither."""
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
    """Scalar head: one value of each action (DQN).

    Attributes:
        error: Loss of a TD error: squared, or huber, which is linear beyond 1.
        value_rescaling: Whether values are learnt as sign(x) * (sqrt(abs(x) + 1) - 1) + x / 1000, with which rewards
            need no clipping (Pohlen et al., 2018).
    """

    error: Error = "squared"
    value_rescaling: bool = False


@dataclasses.dataclass(frozen=True)
class Categorical(Streams, Support):
    """Categorical head: probabilities of returns at fixed atoms (C51, Bellemare et al., 2017)."""


@dataclasses.dataclass(frozen=True)
class HLGauss(Streams, Support):
    """Histogram head, learnt from a Gaussian around the bootstrap target (HL-Gauss, Farebrother et al., 2024)."""


@dataclasses.dataclass(frozen=True)
class Quantile(Streams):
    """Quantile head: returns at fixed fractions (QR-DQN, Dabney et al., 2018a).

    Attributes:
        num_quantiles: Number of quantiles.
    """

    num_quantiles: int = at_least(1, 50)


@dataclasses.dataclass(frozen=True)
class ImplicitQuantile(Streams):
    """Implicit quantile head: returns at drawn fractions (IQN, Dabney et al., 2018b).

    Attributes:
        num_quantiles: Number of fractions drawn for an observation; acting uses as many evenly spaced ones.
    """

    num_quantiles: int = at_least(1, 8)


@dataclasses.dataclass(frozen=True)
class Ensemble(Part):
    """Ensemble head: values of several members, one of which acts for an episode.

    Bootstrapped DQN, Osband et al., 2016.

    Attributes:
        num_members: Number of members.
        mask_probability: Probability that a member learns from a step.
        prior_scale: Weight of the fixed random network that is added to each member (Osband et al., 2018); 0 for none.
        error: Loss of a TD error: squared, or huber, which is linear beyond 1.
    """

    num_members: int = at_least(1, 10)
    mask_probability: float = number(0.5, Range(0, 1, exclusive=True))
    prior_scale: float = at_least(0, 1.0)
    error: Error = "squared"


@dataclasses.dataclass(frozen=True)
class Greedy(Part):
    """Greedy bootstrap: the value of one next action.

    Attributes:
        double: Whether the online network chooses that action, as in double Q-learning (van Hasselt et al., 2016); else
            the target network does.
    """

    double: bool = False


@dataclasses.dataclass(frozen=True)
class Munchausen(Part):
    """Munchausen bootstrap: a soft value of all next actions, and the log-policy added to the reward.

    Vieillard et al., 2020.

    Attributes:
        munchausen_weight: Weight of the log-policy in the reward.
        munchausen_temperature: Temperature of the softmax policy of the target network.
        munchausen_clip: Lowest value of temperature * log-policy that is added.
    """

    munchausen_weight: float = at_least(0, 0.9)
    munchausen_temperature: float = above(0, 0.03)
    munchausen_clip: float = number(-1.0, Range(highest=0))


@dataclasses.dataclass(frozen=True)
class SelfPrediction(Part):
    """Self-prediction: the features of later observations are predicted, as a target network sees them (BYOL).

    A model of one step is applied again and again.

    Attributes:
        horizon: Number of steps that are predicted, one after another.
        prediction_weight: Weight of the loss of the predictions; that of the values has weight 1.
        prediction_error: Loss of a prediction: squared, the squared distance, or cosine, which is 2 - 2 * cosine.
        action_conditional: Whether the model sees the action.
        projection: Projection of the features before they are compared, with a linear predictor on the online side:
            none, streams, the first layers of both streams of a dueling head (SPR), or shared, the hidden layer of the
            head, which its streams then share (SR-SPR, BBF).
        predictor_rate: Learning rate of the model and of the predictor, in units of learning_rate.
        stop_gradient: Whether the gradient stops at the features that are predicted; without it they are those of the
            online network, which can make them all alike.
        isotropy: Weight, within the loss of the predictions, of a penalty on features that are alike: the mean squared
            distance of their correlations from the identity.
    """

    horizon: int = number(1, Range(1, 100))
    prediction_weight: float = at_least(0, 1.0)
    prediction_error: Literal["squared", "cosine"] = "squared"
    action_conditional: bool = True
    projection: Literal["none", "streams", "shared"] = "none"
    predictor_rate: float = above(0, 1.0)
    stop_gradient: bool = True
    isotropy: float = at_least(0, 0.0)


@dataclasses.dataclass(frozen=True)
class LinearPrediction(SelfPrediction):
    """Self-prediction by a matrix, or by one for each action (Khetarpal et al., 2025)."""


@dataclasses.dataclass(frozen=True)
class MLPPrediction(SelfPrediction):
    """Self-prediction by dense layers, which see the action as a one-hot vector (Ni et al., 2024).

    Attributes:
        transition_sizes: Number of units of each hidden layer.
    """

    transition_sizes: tuple[int, ...] = at_least(1, (128,))


@dataclasses.dataclass(frozen=True)
class ConvPrediction(SelfPrediction):
    """Self-prediction by two convolutions on the map of features, which see the action as planes (SPR)."""


@dataclasses.dataclass(frozen=True)
class Resets(Part):
    """Periodic resets, which keep a network able to learn where it is trained for long (D'Oro et al., 2023).

    Attributes:
        reset_period: Period of the resets in learner steps, such as 40000, or in environment steps, such as 20000env;
            there is none in the last period of a run.
        reset_parts: Parts of the network that are initialised again, and their optimizer state: prefixes of module
            paths, such as head, with spaces between several; empty for none.
        shrink_parts: Parts of the network that move towards newly initialised parameters; empty for none.
        shrink: Weight of the old parameters where they move.
    """

    reset_period: str = "40000"
    reset_parts: str = "head"
    shrink_parts: str = "torso"
    shrink: float = unit(0.8)


Head = Scalar | Categorical | HLGauss | Quantile | ImplicitQuantile | Ensemble
Bootstrap = Greedy | Munchausen
Optimizer = Adam | AdamW | RMSProp | SGD


@dataclasses.dataclass(frozen=True)
class AgentConfig(Part):
    """Config of an agent.

    Attributes:
        network: Torso and core of the network.
        head: Output of the network for each action, and its loss.
        bootstrap: Bootstrap policy: the next action or policy whose value is bootstrapped.
        augmentation: Augmentation of images as the learner sees them: shift by up to 4 pixels (DrQ),
            shift_and_intensity, none, or auto, which is shift for images, else none.
        optimizer: Optimizer of the parameters.
        learning_rate: Learning rate, a number or a schedule over learner steps.
        max_gradient_norm: Global norm to which gradients are clipped; None for no clipping.
        skip_nonfinite: Whether a learner step that comes out NaN or infinite is undone and counted in the metric
            skipped; without it, such a step ends the run.
        target: Rule of the target network, such as periodic:500, incremental:0.005, frozen or none. Periods are learner
            steps; 500env is in environment steps. q/torso=none after it gives a part of the network its own rule, and
            encoder=incremental:0.01 gives self-prediction a target of its own.
        average: Rule of a Polyak average of the parameters to evaluate with, such as incremental:0.001; none evaluates
            the online parameters.
        act_with: Network that acts, in training and where it is evaluated: online, or target, that of the main rule.
        self_prediction: Self-prediction of features as a second term of the loss, by a linear model of a step, by an
            mlp, or by convolutions of images' features, conv; or none.
        resets: Periodic resets of parts of the network, or none.
    """

    network: Network = Network()
    head: Head = one_of(
        {
            "scalar": Scalar,
            "categorical": Categorical,
            "hl_gauss": HLGauss,
            "quantile": Quantile,
            "implicit_quantile": ImplicitQuantile,
            "ensemble": Ensemble,
        },
        Scalar(),
        keeps=("dueling", "noisy_sigma", "num_atoms", "v_min", "v_max", "error"),
    )
    bootstrap: Bootstrap = one_of({"greedy": Greedy, "munchausen": Munchausen}, Greedy())
    augmentation: Literal["auto", "none", "shift", "shift_and_intensity"] = "none"
    optimizer: Optimizer = one_of({"adam": Adam, "adamw": AdamW, "rmsprop": RMSProp, "sgd": SGD}, Adam())
    learning_rate: Schedule = scheduled("linear(0.001,0,100%)", Range(0))
    max_gradient_norm: float | None = above(0, None)
    skip_nonfinite: bool = False
    target: str = "periodic:200"
    average: str = "none"
    act_with: Literal["online", "target"] = "online"
    self_prediction: LinearPrediction | MLPPrediction | ConvPrediction | None = one_of(
        {"none": None, "linear": LinearPrediction, "mlp": MLPPrediction, "conv": ConvPrediction},
        None,
        keeps=tuple(field.name for field in dataclasses.fields(SelfPrediction)),
    )
    resets: Resets | None = one_of({"none": None, "periodic": Resets}, None)

    def __post_init__(self) -> None:
        """Check the fields, and parts that exclude each other."""
        super().__post_init__()
        if self.learning_rate.extremes[1] == 0:
            raise ValueError("learning_rate: got 0, with which nothing is learnt; expected a number > 0.")
        if isinstance(self.optimizer, AdamW) and isinstance(self.head, Ensemble) and self.head.prior_scale:
            raise ValueError(
                "optimizer: got AdamW, but its decay would move the fixed prior of the ensemble. Try --optimizer adam, "
                "or --prior-scale 0."
            )
        parts = "" if self.resets is None else f"{self.resets.reset_parts} {self.resets.shrink_parts}"
        if isinstance(self.head, Ensemble) and any(part.split("/")[0] == "prior" for part in parts.split()):
            raise ValueError(
                "reset_parts: got 'prior', the fixed prior of the ensemble, which online and target network have in "
                "common; expected other parts. Leave it out of reset_parts and shrink_parts."
            )
        self._check_projection()
        if isinstance(self.bootstrap, Munchausen) and isinstance(self.head, Scalar) and self.head.value_rescaling:
            raise ValueError(
                "value_rescaling: got True, but the Munchausen bootstrap is a softmax of values on their own scale. "
                "Try --no-value-rescaling, or --bootstrap greedy."
            )

    def _check_projection(self) -> None:
        """Check that the head has the layers of the projection, and that convolutions predict features of a torso."""
        prediction = self.self_prediction
        if prediction is None:
            return
        if prediction.projection == "streams" and not getattr(self.head, "dueling", False):
            raise ValueError(
                "projection: got 'streams', but the head has none; expected none or shared. Try --dueling, or "
                "--projection shared."
            )
        if prediction.projection != "none" and isinstance(self.head, ImplicitQuantile):
            raise ValueError(
                f"projection: got {prediction.projection!r}, but the hidden layer of an implicit quantile head follows "
                "the fractions; expected none. Try --projection none, or --head quantile."
            )
        if isinstance(prediction, ConvPrediction) and self.network.core is not None:
            raise ValueError(
                "self_prediction: got 'conv', but the features of a recurrent core are no map. Try --self-prediction "
                "mlp, or --core none."
            )

    @property
    def derives_support(self) -> bool:
        """Whether the support of the head is derived from the rewards of the first steps."""
        return isinstance(self.head, Support) and self.head.v_min is None

    @property
    def burn_in(self) -> int:
        """Number of steps of a sequence that only bring the recurrent state up to date; 0 without a core."""
        return 0 if self.network.core is None else self.network.core.burn_in


def check_bounded(discount: float) -> None:
    """Check that returns have a bound, from which a support can be derived.

    Raises:
        ValueError: if the discount is not in [0, 1).

    >>> check_bounded(0.99)
    """
    if not 0 <= discount < 1:
        raise ValueError(
            f"v_min: got None with a discount of {discount}, under which returns have no bound. {GIVE_SUPPORT}"
        )
