"""Projector and predictor of BYOL, and its network."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax

from ._checks import check_positive
from .conv import Lowering
from .dense import Activation
from .torsos import TorsoName, make_torso, scale_images

Tree = Any
_DECAY, _EPSILON = 0.9, 1e-5  # BatchNorm settings of Grill et al.


class ProjectionMLP(hk.Module):  # type: ignore[misc]
    """Projector and predictor of BYOL: linear layer, BatchNorm, ReLU, and a linear layer without a bias.

    Reference:
        Grill et al., "Bootstrap your own latent", NeurIPS 2020, section 3.3.

    Args:
        hidden_size: Number of units of the hidden layer.
        output_size: Number of outputs.
        name: Name of the module.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is below 1.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> project = hk.transform_with_state(lambda x: networks.ProjectionMLP(8, 4)(x, is_training=True))
        >>> params, state = project.init(jax.random.key(0), jnp.ones([2, 16]))
        >>> sorted(params)
        ['projector/batch_norm', 'projector/linear', 'projector/linear_1']
        >>> project.apply(params, state, None, jnp.ones([2, 16]))[0].shape
        (2, 4)
    """

    def __init__(self, hidden_size: int, output_size: int, name: str | None = "projector") -> None:
        super().__init__(name=name)
        check_positive("hidden_size", hidden_size)
        check_positive("output_size", output_size)
        self.hidden_size = hidden_size
        self.output_size = output_size

    def __call__(self, features: jax.Array, is_training: bool) -> jax.Array:
        """Map features ``[B, D]`` to ``[B, output_size]``.

        Args:
            features: Features ``[B, D]`` float32.
            is_training: Whether BatchNorm uses the statistics of the batch and updates the averages in the module
                state; if False, it uses the averages.

        Raises:
            ValueError: If ``is_training`` and the batch has one row, because BatchNorm then maps every feature to 0.
        """
        if is_training and features.shape[0] == 1:
            raise ValueError(
                "batch_size: got one row, for which BatchNorm maps every feature to 0; expected two rows or more. "
                "Give a batch_size of at least 2."
            )
        hidden = hk.Linear(self.hidden_size)(features)
        hidden = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=_DECAY, eps=_EPSILON)(
            hidden, is_training
        )
        out: jax.Array = hk.Linear(self.output_size, with_bias=False)(jax.nn.relu(hidden))
        return out


class ProjectionNetwork(NamedTuple):
    """Network of BYOL, made by :func:`projection_network`: functions of parameters and module state.

    Attributes:
        init: Function ``(key, images) -> (params, state)``.
        encode: Function ``(params, state, images) -> features [B, D]``.
        project: Function ``(params, state, features, is_training) -> (projections [B, P], state)``.
        predict: Function ``(params, state, projections, is_training) -> (predictions [B, P], state)``; it returns the
            projections if there is no predictor.
    """

    init: Callable[[jax.Array, jax.Array], tuple[Tree, Tree]]
    encode: Callable[[Tree, Tree, jax.Array], jax.Array]
    project: Callable[[Tree, Tree, jax.Array, bool], tuple[jax.Array, Tree]]
    predict: Callable[[Tree, Tree, jax.Array, bool], tuple[jax.Array, Tree]]


def projection_network(
    torso: TorsoName,
    *,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    projector_hidden: int,
    projection_size: int,
    predictor_hidden: int | None,
    lowering: Lowering = "convolution",
) -> ProjectionNetwork:
    """Build the network of BYOL: encoder (``scale_images`` and a torso), projector and optional predictor.

    The parameters have the path prefixes ``torso``, ``projector`` and ``predictor``. The parameters of the torso have
    the names and shapes of the torso in :func:`make_network`.

    Args:
        torso: Name of the torso, see ``make_torso``.
        hidden_sizes: Number of units of each dense layer of the torso.
        activation: Name of the activation function of these layers.
        projector_hidden: Number of units of the projector's hidden layer.
        projection_size: Size ``P`` of a projection.
        predictor_hidden: Number of units of the predictor's hidden layer; None for no predictor.
        lowering: Lowering of the convolutions, see ``Conv2D``.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is below 1, a name is unknown, or the shape of the images does not fit the torso.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> sizes = {"hidden_sizes": (8,), "projector_hidden": 8, "projection_size": 4, "predictor_hidden": None}
        >>> network = networks.projection_network("small", **sizes)
        >>> params, state = network.init(jax.random.key(0), jnp.ones([2, 8, 8, 1]))
        >>> network.project(params, state, network.encode(params, state, jnp.ones([2, 8, 8, 1])), True)[0].shape
        (2, 4)
    """

    def make() -> tuple[Any, Any]:
        body = make_torso(torso, hidden_sizes=hidden_sizes, activation=activation, lowering=lowering)
        projector = ProjectionMLP(projector_hidden, projection_size)
        predictor = None if predictor_hidden is None else ProjectionMLP(predictor_hidden, projection_size, "predictor")

        def encode(images: jax.Array) -> jax.Array:
            return body(scale_images(images))

        def predict(projections: jax.Array, is_training: bool) -> jax.Array:
            return projections if predictor is None else predictor(projections, is_training)

        def everything(images: jax.Array) -> jax.Array:
            return predict(projector(encode(images), True), True)

        return everything, (encode, projector, predict)

    init, (encode, project, predict) = hk.multi_transform_with_state(make)
    return ProjectionNetwork(
        init,
        lambda params, state, images: encode(params, state, None, images)[0],
        lambda params, state, features, is_training: project(params, state, None, features, is_training),
        lambda params, state, projections, is_training: predict(params, state, None, projections, is_training),
    )
