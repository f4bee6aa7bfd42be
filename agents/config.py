"""Config of an agent: a tree of parts, each a frozen dataclass; a choice between several parts is a union.

The module imports nothing heavy, so that help and the table of agents do not wait for JAX. The config of a loop is in
:mod:`polyak.agents.loop_config`.
"""

import dataclasses
from typing import Literal

from .fields import Part, Range, above, at_least, number, one_of, scheduled, unit
from .head_parts import (
    Categorical,
    Ensemble,
    Error,
    Head,
    HLGauss,
    ImplicitQuantile,
    Iterated,
    Quantile,
    Scalar,
    Streams,
    Support,
    check_bounded,
)
from .optimizer_parts import SGD, Adam, AdamW, RMSProp
from .schedules import Schedule

__all__ = [
    "LSTM",
    "AgentConfig",
    "Bootstrap",
    "Categorical",
    "ConvPrediction",
    "Ensemble",
    "Error",
    "FunctionalRegularization",
    "Greedy",
    "HLGauss",
    "Head",
    "ImplicitQuantile",
    "Iterated",
    "LinearPrediction",
    "MLPPrediction",
    "Munchausen",
    "Network",
    "Optimizer",
    "Quantile",
    "Resets",
    "Scalar",
    "SelfPrediction",
    "Streams",
    "Support",
    "TrustRegion",
    "check_bounded",
]


@dataclasses.dataclass(frozen=True)
class LSTM(Part):
    """Recurrent core (R2D2): an LSTM between torso and head, trained on sequences with stored recurrent state.

    Attributes:
        lstm_size: Number of LSTM units.
        burn_in: Number of steps at the start of a sequence that only update the recurrent state; a sequence that starts
            with its episode learns from these steps too.
    """

    lstm_size: int = at_least(1, 64)
    burn_in: int = at_least(0, 0)


@dataclasses.dataclass(frozen=True)
class Network(Part):
    """Torso and core of the network.

    Attributes:
        torso: Layers below the head: mlp, nature (convolutions of Mnih et al., 2015), impala (residual convolutions of
            Espeholt et al., 2018), minatar (one convolution, Young and Tian, 2019), small (three 3x3 convolutions, for
            small images), or auto (nature for images, otherwise mlp).
        torso_width: Multiplier of the number of filters in each convolution of the torso.
        hidden_sizes: Number of units in each dense layer.
        activation: Activation function of the dense layers.
        normalize_features: Whether to scale the torso's features of each observation to [0, 1] by their minimum and
            maximum (SPR).
        core: Recurrent core between torso and head: lstm, or none.
    """

    torso: Literal["auto", "mlp", "nature", "impala", "minatar", "small"] = "auto"
    torso_width: int = at_least(1, 1)
    hidden_sizes: tuple[int, ...] = at_least(1, (120, 84))
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"] = "relu"
    normalize_features: bool = False
    core: LSTM | None = one_of({"none": None, "lstm": LSTM}, None)


@dataclasses.dataclass(frozen=True)
class Greedy(Part):
    """Greedy bootstrap: the value of one next action.

    Attributes:
        double: Whether the online network chooses the next action, as in double Q-learning (van Hasselt et al., 2016);
            otherwise the target network chooses it.
    """

    double: bool = False


@dataclasses.dataclass(frozen=True)
class Munchausen(Part):
    """Munchausen bootstrap: the soft value of all next actions, with the log-policy added to the reward.

    Vieillard et al., 2020.

    Attributes:
        munchausen_weight: Weight of the log-policy in the reward.
        munchausen_temperature: Temperature of the target network's softmax policy.
        munchausen_clip: Lower bound of temperature * log-policy in the reward.
    """

    munchausen_weight: float = at_least(0, 0.9)
    munchausen_temperature: float = above(0, 0.03)
    munchausen_clip: float = number(-1.0, Range(highest=0))


@dataclasses.dataclass(frozen=True)
class FunctionalRegularization(Part):
    """Functional regularization: the values of the online network are pulled towards those of the target network.

    Bootstrap targets are values of the online network, under stop-gradient (Piché et al., 2021).

    Attributes:
        functional_weight: Weight of half the squared distance between the values of the online network and the target
            network.
    """

    functional_weight: float = above(0, 1.0)


@dataclasses.dataclass(frozen=True)
class TrustRegion(Part):
    """Trust region around the target network: steps whose gradient would lead further out of it have no loss.

    Bootstrap targets are values of the online network, under stop-gradient (MEME, Kapturowski et al., 2023).

    Attributes:
        trust_region_width: Largest distance between the values of the online network and the target network, in
            standard deviations of the TD errors of the batch.
    """

    trust_region_width: float = above(0, 1.0)


@dataclasses.dataclass(frozen=True)
class SelfPrediction(Part):
    """Self-prediction: the online network predicts the target network's features of later observations (BYOL).

    A one-step transition model is applied once for each step of the horizon.

    Attributes:
        horizon: Number of future steps to predict.
        prediction_weight: Weight of the prediction loss; the value loss has weight 1.
        prediction_error: Loss of a prediction: squared (squared distance) or cosine (2 - 2 * cosine similarity).
        action_conditional: Whether the transition model takes the action as an input.
        projection: Projection of the features before they are compared: none, streams (the first layers of both streams
            of a dueling head, as in SPR), or shared (the hidden layer of the head, which its streams then share, as in
            SR-SPR and BBF). With a projection, the online network has a linear predictor.
        predictor_rate: Learning rate of the transition model and the predictor, as a multiple of learning_rate.
        stop_gradient: Whether to stop the gradient at the features to predict; otherwise they are the online network's
            own features, which can collapse to a constant.
        isotropy: Weight, within the prediction loss, of a penalty on correlated features: the mean squared difference
            of the features' correlations from the identity.
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
    """Self-prediction with a linear model: one matrix, or one matrix per action (Khetarpal et al., 2025)."""


@dataclasses.dataclass(frozen=True)
class MLPPrediction(SelfPrediction):
    """Self-prediction with dense layers, which take the action as a one-hot vector (Ni et al., 2024).

    Attributes:
        transition_sizes: Number of units in each hidden layer of the transition model.
    """

    transition_sizes: tuple[int, ...] = at_least(1, (128,))


@dataclasses.dataclass(frozen=True)
class ConvPrediction(SelfPrediction):
    """Self-prediction with two convolutions on the feature map, which take the action as one-hot planes (SPR)."""


@dataclasses.dataclass(frozen=True)
class Resets(Part):
    """Periodic resets, which keep a network able to learn in long training (D'Oro et al., 2023).

    Attributes:
        reset_period: Period of the resets in learner steps, such as 40000, or in environment steps, such as 20000env;
            the last period of a run has no reset.
        reset_parts: Parts of the network to initialise again with their optimizer state, as prefixes of module paths
            with spaces between them, such as 'head predictor'; empty for no part.
        shrink_parts: Parts of the network to move towards newly initialised parameters, as prefixes of module paths
            with spaces between them; empty for no part.
        shrink: Weight of the old parameters in shrink_parts; the new parameters have weight 1 - shrink.
    """

    reset_period: str = "40000"
    reset_parts: str = "head"
    shrink_parts: str = "torso"
    shrink: float = unit(0.8)


Bootstrap = Greedy | Munchausen
Optimizer = Adam | AdamW | RMSProp | SGD


@dataclasses.dataclass(frozen=True)
class AgentConfig(Part):
    """Config of an agent.

    Attributes:
        network: Torso and core of the network.
        head: Head of the network: its output for each action, and the loss of that output.
        bootstrap: Bootstrap policy: greedy (the value of one next action) or munchausen (a soft value of all actions).
        augmentation: Augmentation of sampled images: shift (by up to 4 pixels, DrQ), shift_and_intensity, none, or auto
            (shift for images, otherwise none).
        optimizer: Optimizer of the parameters.
        learning_rate: Learning rate, a number or a schedule over learner steps.
        max_gradient_norm: Global norm to which gradients are clipped; None disables clipping.
        skip_nonfinite: Whether to undo a learner step whose result is NaN or infinite, and count it in the metric
            skipped; otherwise such a step ends the run.
        target: Rule of the target network, such as periodic:500, incremental:0.005, frozen or none. Periods are learner
            steps; 500env is a period in environment steps. Append q/torso=none to give a part of the network its own
            rule, or encoder=incremental:0.01 to give self-prediction its own target.
        target_role: Role of the target network in the value loss: bootstrap (bootstrap targets are its values),
            functional (the loss penalizes the distance to its values), or trust_region (the loss is dropped far from
            its values). Under functional and trust_region, the online network provides the bootstrap targets.
        average: Rule of the Polyak average to evaluate with, such as incremental:0.001, or none to evaluate the network
            that acts.
        act_with: Network that acts, in training and in evaluation: online, or target (the main target network).
        self_prediction: Transition model of the self-prediction loss: linear, mlp, conv (for images), or none for no
            such loss.
        resets: Resets of parts of the network: periodic, or none.
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
            "iterated": Iterated,
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
    target_role: FunctionalRegularization | TrustRegion | None = one_of(
        {"bootstrap": None, "functional": FunctionalRegularization, "trust_region": TrustRegion}, None
    )
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
        if isinstance(self.optimizer, AdamW) and isinstance(self.head, Iterated):
            raise ValueError(
                "optimizer: got AdamW, but its decay would move head 0 of the iterated head, which is frozen. Try "
                "--optimizer adam, or another head."
            )
        if self.target_role is not None and isinstance(self.head, Iterated):
            raise ValueError(
                f"target_role: got {type(self.target_role).__name__}, but each head of the iterated head bootstraps "
                "from the head before it. Try --target-role bootstrap, or --head scalar."
            )
        parts = "" if self.resets is None else f"{self.resets.reset_parts} {self.resets.shrink_parts}"
        if isinstance(self.head, Ensemble) and any(part.split("/")[0] == "prior" for part in parts.split()):
            raise ValueError(
                "reset_parts: got 'prior', the fixed prior of the ensemble, which the online and target networks "
                "share; expected other parts. Leave it out of reset_parts and shrink_parts."
            )
        self._check_projection()
        if isinstance(self.bootstrap, Munchausen) and isinstance(self.head, Scalar) and self.head.value_rescaling:
            raise ValueError(
                "value_rescaling: got True, but the Munchausen bootstrap is a softmax of values on their own scale. "
                "Try --no-value-rescaling, or --bootstrap greedy."
            )

    def _check_projection(self) -> None:
        """Check that the head has the layers of the projection, and that conv predicts features of a torso."""
        prediction = self.self_prediction
        if prediction is None:
            return
        if prediction.projection == "streams" and not getattr(self.head, "dueling", False):
            raise ValueError(
                "projection: got 'streams', but the head is not dueling; expected none or shared. Try --dueling, or "
                "--projection shared."
            )
        if prediction.projection != "none" and isinstance(self.head, ImplicitQuantile):
            raise ValueError(
                f"projection: got {prediction.projection!r}, but the hidden layer of an implicit quantile head depends "
                "on the quantile fractions; expected none. Try --projection none, or --head quantile."
            )
        if isinstance(prediction, ConvPrediction) and self.network.core is not None:
            raise ValueError(
                "self_prediction: got 'conv', but the features of a recurrent core have no spatial shape. Try "
                "--self-prediction mlp, or --core none."
            )

    @property
    def derives_support(self) -> bool:
        """Whether the support of the head is derived from the rewards of the first steps."""
        return isinstance(self.head, Support) and self.head.v_min is None

    @property
    def burn_in(self) -> int:
        """Number of burn-in steps of a sequence, which only update the recurrent state; 0 without a core."""
        return 0 if self.network.core is None else self.network.core.burn_in
