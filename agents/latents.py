"""Predicted features of later observations, and the features to predict, for all steps of a sample."""

from typing import Any

import jax
import jax.numpy as jnp

from ..networks import Network
from ..replay.types import Sample, Sequence
from ..updates import Variables
from .config import SelfPrediction
from .types import Latents

Array = Any


def predict_latents(
    config: SelfPrediction,
    network: Network,
    online: Variables,
    slow: Variables,
    sample: Sample,
    hidden: Array,
    hidden_of_target: Array,
    learns: Array,
) -> Latents:
    """Predict the features of the next ``horizon`` observations from the features of each observation acted on.

    If the network has a projection, the predicted features and the features to predict are both projected. Predictions
    end with the episode or the sequence: the observation at a termination is predicted, later ones are not.

    Args:
        config: Self-prediction part of the config.
        network: Network of the agent.
        online: Online parameters and module state.
        slow: Parameters and module state that compute the features to predict.
        sample: Transitions with their future, or sequences.
        hidden: ``[B, T, H]``, online features of the observations acted on.
        hidden_of_target: ``[B, T + 1, H]``, features of all observations of sequences computed with ``slow``. For
            transitions it is not read, because this function encodes their later observations.
        learns: ``[B, T]`` bool, whether a step is learnt from.

    Raises:
        ValueError: if a sample of transitions does not have a future of ``horizon`` steps.
    """
    assert network.predict is not None
    drawn, horizon = sample.transition, config.horizon
    if isinstance(drawn, Sequence):
        length = drawn.valid.shape[1]
        at = jnp.arange(length)[:, None] + jnp.arange(horizon)[None]  # [T, K], numbers of the predicted steps
        within = jnp.minimum(at, length - 1)
        hidden_of_target = _project(network, slow, hidden_of_target)
        valid = learns[..., None] & drawn.valid[:, within] & (at < length)[None]  # padding comes last
        actions, wanted = drawn.a_tm1[:, within], hidden_of_target[:, within + 1]
    else:
        future: Any = sample.future
        if not isinstance(future, Sequence) or future.valid.shape[1] != horizon:
            found = f"{future.valid.shape[1]} steps" if isinstance(future, Sequence) else "none"
            raise ValueError(
                f"sample.future: got {found}; expected the next {horizon} steps, which self-prediction reads. Make the "
                "replay with future=agent.future."
            )
        valid, actions = future.valid[:, None], future.a_tm1[:, None]
        images = future.obs[:, 1:]
        flat = images.reshape(-1, *images.shape[2:])
        wanted = _project(network, slow, network.encode(*slow, None, flat, False)[0]).reshape(*valid.shape, -1)
    batch, steps = hidden.shape[:2]
    rows = batch * steps
    predicted = network.predict(online.params, hidden.reshape(rows, -1), actions.reshape(rows, horizon))
    wanted = jax.lax.stop_gradient(wanted) if config.stop_gradient else wanted
    return Latents(hidden, predicted.reshape(wanted.shape), wanted, valid)


def _project(network: Network, variables: Variables, hidden: Array) -> Array:
    return hidden if network.project is None else network.project(variables.params, hidden)
