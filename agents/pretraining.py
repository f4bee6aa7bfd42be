"""Config of BYOL pretraining on images. The module imports nothing heavy."""

import dataclasses
from typing import Literal

from .fields import Part, Range, above, at_least, number, one_of, scheduled, unit
from .optimizer_parts import AdamW
from .schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Encoder(Part):
    """Encoder: the torso of an agent.

    Attributes:
        torso: Layers of the encoder: small (three 3x3 convolutions, for small images), nature (convolutions of Mnih et
            al., 2015, for 36 pixels and more), impala (residual convolutions of Espeholt et al., 2018), minatar (one
            convolution, Young and Tian, 2019), or mlp.
        hidden_sizes: Number of units in each dense layer after the torso; the last layer's output is the features.
        activation: Activation function of the dense layers.
    """

    torso: Literal["mlp", "nature", "impala", "minatar", "small"] = "small"
    hidden_sizes: tuple[int, ...] = at_least(1, (256,))
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"] = "relu"


@dataclasses.dataclass(frozen=True)
class Projector(Part):
    """Projector: an MLP from the features to the projection.

    Attributes:
        projector_hidden: Number of units in the projector's hidden layer, which has BatchNorm.
        projection_size: Number of elements of a projection.
    """

    projector_hidden: int = at_least(1, 512)
    projection_size: int = at_least(1, 128)


@dataclasses.dataclass(frozen=True)
class MLPPredictor(Part):
    """Predictor: an MLP with the layers of the projector.

    Attributes:
        predictor_hidden: Number of units in the predictor's hidden layer, which has BatchNorm.
    """

    predictor_hidden: int = at_least(1, 512)


@dataclasses.dataclass(frozen=True)
class ImageViews(Part):
    """Random views, two per image: each is rotated, scaled and shifted, and a rectangle is erased.

    Attributes:
        max_rotation: Largest rotation in degrees, in either direction.
        max_scaling: Largest relative change of size; 0.2 scales by a factor between 1 / 1.2 and 1.2.
        max_shift: Largest shift along each axis, as a fraction of the image's side.
        erase_probability: Probability that a rectangle of a view is erased.
        erase_side: Largest side of the erased rectangle, as a fraction of the image's side.
    """

    max_rotation: float = number(15.0, Range(0, 180))
    max_scaling: float = at_least(0, 0.2)
    max_shift: float = unit(0.1)
    erase_probability: float = unit(0.5)
    erase_side: float = number(0.5, Range(0, 1, exclusive=True))


@dataclasses.dataclass(frozen=True)
class LARS(Part):
    """Layer-wise adaptive rate scaling (You et al., 2017); biases and BatchNorm are neither scaled nor decayed.

    Attributes:
        momentum: Momentum, the decay of the velocity per step.
        weight_decay: Weight decay, added to the gradient as weight_decay * weights.
        trust_coefficient: Trust coefficient: norm of a layer's step relative to the norm of its weights.
    """

    momentum: float = unit(0.9)
    weight_decay: float = at_least(0, 1.5e-6)
    trust_coefficient: float = above(0, 1e-3)


@dataclasses.dataclass(frozen=True)
class BYOLConfig(Part):
    """Config of BYOL on images (Grill et al., 2020).

    Attributes:
        encoder: Encoder: the torso of an agent.
        projector: Projector: an MLP from the features to the projection.
        predictor: Predictor of the target network's projection: mlp, or none, with which the projections collapse.
        views: Random views of an image.
        optimizer: Optimizer of the parameters.
        learning_rate: Learning rate, a number or a schedule over gradient steps.
        target: Rule of the target network, such as incremental:cosine(0.01), incremental:0.01, frozen or none
            (SimSiam). Periods are gradient steps. Append target/projector=none to give a part of the network its own
            rule.
        stop_gradient: Whether to stop the gradient at the target's projections; without it, the projections collapse,
            and the target must be none.
    """

    encoder: Encoder = Encoder()
    projector: Projector = Projector()
    predictor: MLPPredictor | None = one_of({"mlp": MLPPredictor, "none": None}, MLPPredictor())
    views: ImageViews = ImageViews()
    optimizer: AdamW | LARS = one_of({"adamw": AdamW, "lars": LARS}, AdamW())
    learning_rate: Schedule = scheduled("cosine(0.001,0,100%)", Range(0))
    target: str = "incremental:cosine(0.01)"
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        """Check the fields, and fields that exclude each other."""
        super().__post_init__()
        if self.learning_rate.extremes[1] == 0:
            raise ValueError("learning_rate: got 0, with which nothing is learnt; expected a number > 0.")
        if not self.stop_gradient and self.target.strip() != "none":
            raise ValueError(
                f"stop_gradient: got False with the target {self.target!r}, but only the online network has a "
                "gradient; expected the target none. Try --target none."
            )
