"""Config parts of the optimizers. The module imports nothing heavy."""

import dataclasses

from .fields import Part, above, at_least


@dataclasses.dataclass(frozen=True)
class Adam(Part):
    """Adam (Kingma and Ba, 2015).

    Attributes:
        optimizer_epsilon: Constant added to the denominator.
    """

    optimizer_epsilon: float = above(0, 1e-8)


@dataclasses.dataclass(frozen=True)
class AdamW(Part):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    Attributes:
        optimizer_epsilon: Constant added to the denominator.
        weight_decay: Weight decay per step, as a multiple of the learning rate; biases are not decayed.
    """

    optimizer_epsilon: float = above(0, 1e-8)
    weight_decay: float = at_least(0, 1e-4)


@dataclasses.dataclass(frozen=True)
class RMSProp(Part):
    """Centred RMSProp with a decay of 0.95 (Mnih et al., 2015).

    Attributes:
        optimizer_epsilon: Constant added to the denominator.
    """

    optimizer_epsilon: float = above(0, 1e-8)


@dataclasses.dataclass(frozen=True)
class SGD(Part):
    """Stochastic gradient descent without momentum."""
