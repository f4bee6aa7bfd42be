"""Config of pretraining: the parts of BYOL on images. It imports nothing heavy."""

import dataclasses
from typing import Literal

from .fields import Part, Range, above, at_least, number, one_of, scheduled, unit
from .optimizer_parts import AdamW
from .schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Encoder(Part):
    """Encoder: the torso of an agent.

    Attributes:
        torso: Layers of the encoder: small (three convolutions of 3x3, for small images), nature (convolutions of Mnih
            et al., 2015, for 36 pixels and more), impala (residual ones of Espeholt et al., 2018), minatar (a single
            one, Young and Tian, 2019), or mlp.
        hidden_sizes: Number of units of each dense layer after them; the output of the last is the features.
        activation: Activation function of the dense layers.
    """

    torso: Literal["mlp", "nature", "impala", "minatar", "small"] = "small"
    hidden_sizes: tuple[int, ...] = at_least(1, (256,))
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"] = "relu"


@dataclasses.dataclass(frozen=True)
class Projector(Part):
    """Projector, between the features and the vectors that are predicted.

    Attributes:
        projector_hidden: Number of units of the hidden layer, which has BatchNorm.
        projection_size: Length of a projection.
    """

    projector_hidden: int = at_least(1, 512)
    projection_size: int = at_least(1, 128)


@dataclasses.dataclass(frozen=True)
class MLPPredictor(Part):
    """Predictor of the form of the projector.

    Attributes:
        predictor_hidden: Number of units of the hidden layer, which has BatchNorm.
    """

    predictor_hidden: int = at_least(1, 512)


@dataclasses.dataclass(frozen=True)
class ImageViews(Part):
    """Views of an image: two random ones of each image, each rotated, scaled, shifted, and with a rectangle erased.

    Attributes:
        max_rotation: Largest rotation in degrees, to either side.
        max_scaling: Largest change of the size; 0.2 for 1 / 1.2 to 1.2.
        max_shift: Largest shift along each axis, as a part of the image's side.
        erase_probability: Probability that a rectangle of a view is erased.
        erase_side: Largest side of the rectangle, as a part of the image's side.
    """

    max_rotation: float = number(15.0, Range(0, 180))
    max_scaling: float = at_least(0, 0.2)
    max_shift: float = unit(0.1)
    erase_probability: float = unit(0.5)
    erase_side: float = number(0.5, Range(0, 1, exclusive=True))


@dataclasses.dataclass(frozen=True)
class LARS(Part):
    """Layer-wise adaptive rates (You et al., 2017); biases and BatchNorm are neither adapted nor decayed.

    Attributes:
        momentum: Decay of the velocity.
        weight_decay: Decay of the weights in a step, added to the gradient.
        trust_coefficient: Size of a layer's step, relative to the norm of its weights.
    """

    momentum: float = unit(0.9)
    weight_decay: float = at_least(0, 1.5e-6)
    trust_coefficient: float = above(0, 1e-3)


@dataclasses.dataclass(frozen=True)
class BYOLConfig(Part):
    """Config of BYOL on images (Grill et al., 2020).

    Attributes:
        encoder: Encoder: the torso of an agent.
        projector: Projector, between the features and the vectors that are predicted.
        predictor: Predictor of the target's projection: an mlp, or none, without which the projections collapse.
        views: Views of an image.
        optimizer: Optimizer of the parameters.
        learning_rate: Learning rate, a number or a schedule over gradient steps.
        target: Rule of the target network, such as incremental:cosine(0.01), incremental:0.01, frozen or none, which is
            SimSiam. Periods are gradient steps. target/projector=none after it gives a part of the network its own
            rule.
        stop_gradient: Whether the gradient stops at the target's projections; without it, which goes with the target
            none alone, the projections collapse.
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
                f"stop_gradient: got False with the target {self.target!r}; a gradient goes through the online network "
                "alone. Try --target none with it."
            )
