"""BYOL on images: two views of each, an online network that predicts the target network's projection of the other."""

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
    """Functions of BYOL; pure, none of them jitted but ``init``.

    Attributes:
        init: ``key -> LearnerState``.
        learner: Learner whose batch is images ``[B, H, W, C]``.
        encode: ``(LearnerState, images) -> features [B, D]`` of the online encoder.
        encode_by_target: The same of the target's encoder; under the rule ``none`` that is the online encoder.
        read: ``(key, LearnerState, images) -> metrics``: readings of the features of one view of each image.
        targets: Name to target.
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

    Both views of a batch go through each network together, as one batch ``[2 B]``, so that BatchNorm's statistics are
    over both (Grill et al. take them over each view). The module state of the target network is its own: that of its
    own forward pass. Under the rule ``none`` there is no second pass: the projections that are predicted are the
    online network's (SimSiam, Chen and He, 2021).

    Args:
        config: Config of BYOL.
        image: Shape ``[H, W, C]`` and dtype of one image.
        total_learner_steps: Number of gradient steps of the run, over which the learning rate and a cosine rule change.
        lowering: Lowering of convolutions (see :class:`polyak.networks.Conv2D`).

    Raises:
        ValueError: if the images do not suit the torso, or the text of the target does not parse.

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
    """The only target: encoder and projector, with a module state of its own.

    Raises:
        ValueError: if the text of the rule does not parse.

    >>> str(make_byol_targets(BYOLConfig(), 100)["target"].rule)
    'incremental:cosine(0.01,100)'
    """
    rules = updates.parse_named(config.target, (TARGET,), horizon=total_learner_steps)
    return {TARGET: Target(rules[TARGET], select=_below_predictor, module_state="own")}


def byol_loss(predicted: Array, projected: Array) -> jax.Array:
    """Mean over both directions of ``2 - 2 * cosine``, from the predictions of one view to the other's projections.

    Grill et al., 2020, equation 2, which sums the two directions.

    Args:
        predicted: ``[2 B, P]``, predictions from the first views and then from the second ones.
        projected: ``[2 B, P]``, projections of the first views and then of the second ones.

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
    """Modules of encoder and projector, which the target network consists of."""
    return {name: leaves for name, leaves in tree.items() if name.split("/")[0] != _PREDICTOR}
