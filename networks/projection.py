"""Projections of features, and predictions of projections: the networks of BYOL above its encoder."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax

from ._checks import check_positive
from .conv import Lowering
from .dense import Activation
from .torsos import TorsoName, make_torso, scale_images

Tree = Any
_DECAY, _EPSILON = 0.9, 1e-5  # of BatchNorm, as Grill et al. have them


class ProjectionMLP(hk.Module):  # type: ignore[misc]
    """Linear layer, BatchNorm, ReLU, and a linear layer without a bias: the projector of BYOL, and its predictor.

    Reference:
        Grill et al., "Bootstrap your own latent", NeurIPS 2020, section 3.3.

    Args:
        hidden_size: Number of units of the hidden layer.
        output_size: Number of outputs.
        name: Name of the module.

    Raises:
        TypeError: If a size is no integer.
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
            features: ``[B, D]`` float32.
            is_training: Whether the statistics are those of the batch, which the module state averages; else they are
                those of the module state.

        Raises:
            ValueError: If a batch of one has to give the statistics, under which every feature is 0.
        """
        if is_training and features.shape[0] == 1:
            raise ValueError(
                "batch_size: got a batch of one, and BatchNorm makes every feature of it 0; expected two rows or more. "
                "Give a batch_size of at least 2."
            )
        hidden = hk.Linear(self.hidden_size)(features)
        hidden = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=_DECAY, eps=_EPSILON)(
            hidden, is_training
        )
        out: jax.Array = hk.Linear(self.output_size, with_bias=False)(jax.nn.relu(hidden))
        return out


class ProjectionNetwork(NamedTuple):
    """Functions over one tree of parameters and one of module state; made by :func:`projection_network`.

    Attributes:
        init: ``(key, images) -> (params, state)``.
        encode: ``(params, state, images) -> features [B, D]``.
        project: ``(params, state, features, is_training) -> (projections [B, P], state)``.
        predict: ``(params, state, projections, is_training) -> (predictions [B, P], state)``; returns the projections
            where there is no predictor.
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
    """Build the network of BYOL: ``scale_images`` and a torso (the encoder), a projector, and perhaps a predictor.

    The parameters stand under ``torso``, ``projector`` and ``predictor``. Those of the torso are of the shapes and
    names that :func:`make_network` gives an agent's.

    Args:
        torso: Name of the torso, see ``make_torso``.
        hidden_sizes: Units of each dense layer of the torso.
        activation: Name of the activation of these layers.
        projector_hidden: Units of the projector's hidden layer.
        projection_size: Length ``P`` of a projection.
        predictor_hidden: Units of the predictor's hidden layer; None for no predictor.
        lowering: Lowering of the convolutions, see ``Conv2D``.

    Raises:
        TypeError: If a size is no integer.
        ValueError: If a size is below 1, a name is unknown, or the images do not suit the torso.

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
