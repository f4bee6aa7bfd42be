"""BYOL on images: from one view of an image, predict the target network's projection of another view."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import networks, updates
from ..updates import Learner, LearnerState, LossOutput, Target, Variables
from .image_views import Views, make_views
from .optimizers import make_byol_optimizer
from .pretraining import BYOLConfig
from .readings import read_features
from .terms.self_prediction import cosine_similarity, spread
from .types import read_target

Array = Any
TARGET = "target"  # name of the only target
_PREDICTOR = "predictor"


class BYOL(NamedTuple):
    """Pure functions of BYOL; only ``init`` is jitted.

    Attributes:
        init: ``key -> LearnerState``.
        learner: Learner on batches of images ``[B, H, W, C]``.
        encode: ``(LearnerState, images) -> features [B, D]`` of the online encoder.
        encode_by_target: ``(LearnerState, images) -> features [B, D]`` of the target encoder, which is the online
            encoder under the rule ``none``.
        read: ``(key, LearnerState, images) -> metrics``, readings of the features of one view per image.
        targets: Mapping from name to target.
    """

    init: Callable[[jax.Array], LearnerState]
    learner: Learner
    encode: Callable[[LearnerState, jax.Array], jax.Array]
    encode_by_target: Callable[[LearnerState, jax.Array], jax.Array]
    read: Callable[[jax.Array, LearnerState, jax.Array], dict[str, jax.Array]]
    targets: Mapping[str, Target]


def make_byol(
    config: BYOLConfig,
    image: jax.ShapeDtypeStruct,
    *,
    total_learner_steps: int | None = None,
    lowering: networks.Lowering = "convolution",
) -> BYOL:
    """Make BYOL for images of a shape and dtype.

    Each network processes both views of a batch as one batch ``[2 B]``, so that BatchNorm's statistics are over both
    views (Grill et al. compute them for each view). The target network has its own module state, from its own forward
    pass. Under the rule ``none`` there is no second pass, because the online network's projections are predicted
    (SimSiam, Chen and He, 2021).

    Args:
        config: Config of BYOL.
        image: Shape ``[H, W, C]`` and dtype of one image.
        total_learner_steps: Number of gradient steps of the run, over which schedules and a cosine rule change.
        lowering: Lowering of convolutions (see :class:`polyak.networks.Conv2D`).

    Raises:
        ValueError: if the images do not fit the torso, or the rule of the target does not parse.

    >>> config = BYOLConfig(target="incremental:cosine(0.01)")
    >>> byol = make_byol(config, jax.ShapeDtypeStruct((8, 8, 1), jnp.uint8), total_learner_steps=100)
    >>> key, images = jax.random.key(0), jnp.zeros((4, 8, 8, 1), jnp.uint8)
    >>> state, output = jax.eval_shape(byol.learner.step, key, jax.eval_shape(byol.init, key), images)
    >>> sorted(output.metrics)
    ['gradient_norm', 'loss', 'prediction_cosine', 'projection_spread']
    """
    network = networks.projection_network(
        config.encoder.torso,
        hidden_sizes=config.encoder.hidden_sizes,
        activation=config.encoder.activation,
        projector_hidden=config.projector.projector_hidden,
        projection_size=config.projector.projection_size,
        predictor_hidden=None if config.predictor is None else config.predictor.predictor_hidden,
        lowering=lowering,
    )
    views = make_views(config.views)
    targets = make_byol_targets(config, total_learner_steps)
    loss = _make_loss(config, network, views, targets[TARGET].rule)
    learner = updates.learner(loss, make_byol_optimizer(config, total_learner_steps), targets)

    @jax.jit
    def init(key: jax.Array) -> LearnerState:
        return learner.init(*network.init(key, jnp.zeros((2, *image.shape), image.dtype)))

    def encode(state: LearnerState, images: jax.Array) -> jax.Array:
        return network.encode(state.params, state.state, images)

    def encode_by_target(state: LearnerState, images: jax.Array) -> jax.Array:
        return network.encode(*read_target(targets[TARGET], state, TARGET), images)

    def read(key: jax.Array, state: LearnerState, images: jax.Array) -> dict[str, jax.Array]:
        features = encode(state, views(key, images))
        every = jnp.ones(len(features), bool)
        return {"feature_spread": spread(features, every), **read_features(features, every)}

    return BYOL(init, learner, encode, encode_by_target, read, targets)


def make_byol_targets(config: BYOLConfig, total_learner_steps: int | None = None) -> dict[str, Target]:
    """Make the only target: encoder and projector, with their own module state.

    Raises:
        ValueError: if the rule does not parse.

    >>> str(make_byol_targets(BYOLConfig(), 100)["target"].rule)
    'incremental:cosine(0.01,100)'
    """
    rules = updates.parse_named(config.target, (TARGET,), horizon=total_learner_steps)
    return {TARGET: Target(rules[TARGET], select=_below_predictor, module_state="own")}


def byol_loss(predicted: Array, projected: Array) -> jax.Array:
    """Compute the mean of ``2 - 2 * cosine`` between the predictions of one view and the other view's projections.

    Grill et al., 2020, equation 2; this is the mean of the two directions, theirs is the sum.

    Args:
        predicted: ``[2 B, P]``, predictions from the first views, then from the second views.
        projected: ``[2 B, P]``, projections of the first views, then of the second views.

    >>> one, other = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    >>> [float(byol_loss(jnp.stack([one, one]), jnp.stack([to, to]))) for to in (one, other, -one)]
    [0.0, 2.0, 4.0]
    """
    return jnp.mean(2 - 2 * cosine_similarity(predicted, jnp.roll(projected, len(projected) // 2, axis=0)))


def _make_loss(
    config: BYOLConfig, network: networks.ProjectionNetwork, views: Views, rule: updates.Rule
) -> updates.Loss:
    has_copy = not updates.is_none(rule)

    def loss(
        key: jax.Array, params: Any, state: Any, targets: Mapping[str, Variables], batch: Any
    ) -> tuple[jax.Array, LossOutput]:
        both = views(key, jnp.concatenate([batch, batch]))
        projected, state = network.project(params, state, network.encode(params, state, both), True)
        predicted, state = network.predict(params, state, projected, True)
        wanted, target_state = projected, {}
        if has_copy:
            params_of_target, state_of_target = targets[TARGET]
            features = network.encode(params_of_target, state_of_target, both)
            wanted, state_of_target = network.project(params_of_target, state_of_target, features, True)
            target_state = {TARGET: state_of_target}
        if config.stop_gradient:
            wanted = jax.lax.stop_gradient(wanted)
        value = byol_loss(predicted, wanted)
        every = jnp.ones(len(projected), bool)
        metrics = {"prediction_cosine": 1 - value / 2, "projection_spread": spread(projected, every)}
        return value, LossOutput(state, target_state, metrics=metrics)

    return loss


def _below_predictor(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Select the modules of the target network: encoder and projector."""
    return {name: leaves for name, leaves in tree.items() if name.split("/")[0] != _PREDICTOR}
