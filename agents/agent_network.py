"""Network of an agent: the built-in network of its config, or a given network, which is checked."""

import functools
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from .. import networks
from ..networks import Network
from ..replay.types import EnvironmentSpec, TimeStep
from ..updates import Variables
from .acting import forward
from .config import AgentConfig, ConvPrediction, LinearPrediction, MLPPrediction
from .head_parts import Ensemble, ImplicitQuantile
from .heads import HEADS

# Fields of the config's network that only the built-in network reads.
_OF_BUILT_IN_NETWORK = ("torso", "torso_width", "hidden_sizes", "activation", "normalize_features")
_TRANSITIONS = {LinearPrediction: "linear", MLPPrediction: "mlp", ConvPrediction: "conv"}
# Fields of heads that only the built-in network reads, and the values that a given network allows.
_OF_BUILT_IN_HEADS = {
    "dueling": (False,),
    "noisy_sigma": (None,),
    "v_min": (None,),
    "v_max": (None,),
    "prior_scale": (Ensemble().prior_scale, 0.0),
}


def make_networks(
    config: AgentConfig,
    spec: EnvironmentSpec,
    network: Network | hk.Transformed | hk.TransformedWithState | None,
    lowering: networks.Lowering,
) -> tuple[Network, Network]:
    """Make the network that learns and the network that acts; the built-in one acts on evenly spaced fractions.

    Args:
        config: Config of the agent.
        spec: Observations and number of actions.
        network: Network that replaces the built-in network; None keeps the built-in network.
        lowering: Lowering of convolutions.

    Raises:
        ValueError: if a part of the config does not fit the observations or the network, or if a field is set that a
            given network does not read.
    """
    if network is None:
        _check_features(config, spec)
        arguments = network_arguments(config, spec) | _prediction_arguments(config, spec)
        build = functools.partial(networks.make_network, **arguments, lowering=lowering)
        return build(), build(draw_fractions=False)
    if not isinstance(network, Network):
        network = networks.from_haiku(network)
    _refuse_unread(config, lowering)
    if (network.predict is None) != (config.self_prediction is None):
        has = "no predict function" if network.predict is None else "a predict function"
        raise ValueError(
            f"network: got a network with {has}, and self_prediction is {config.self_prediction}; expected both or "
            "neither. Give polyak.networks.compose a predict function, or set self_prediction to none."
        )
    if (network.core is None) != (config.network.core is None):
        has = "no recurrent core" if network.core is None else "a recurrent core"
        raise ValueError(
            f"network: got a network with {has}, and core is {config.network.core}; expected both or neither. Set core "
            f"to {'none' if network.core is None else 'lstm'}."
        )
    return network, network


def _check_features(config: AgentConfig, spec: EnvironmentSpec) -> None:
    """Check that normalize_features scales features of the network and not the observation itself."""
    network = config.network
    if not network.normalize_features or network.core is not None or torso_name(config, spec) != "mlp":
        return
    if len(network.hidden_sizes) == 1 and _head_has_hidden_layer(config):
        raise ValueError(
            f"hidden_sizes: got {network.hidden_sizes}, but this layer belongs to the head, and normalize_features "
            "would scale the observation itself; expected two layers or more. Try --hidden-sizes 120 84, or "
            "--no-normalize-features."
        )


def _head_has_hidden_layer(config: AgentConfig) -> bool:
    """Return whether the last hidden layer belongs to the head."""
    has_own = getattr(config.head, "dueling", False) or isinstance(config.head, ImplicitQuantile)
    return has_own or _projection(config) != "none"


def _prediction_arguments(config: AgentConfig, spec: EnvironmentSpec) -> dict[str, Any]:
    """Return the arguments of :func:`polyak.networks.make_network` for self-prediction, which only learning needs."""
    prediction = config.self_prediction
    if prediction is None:
        return {}
    arguments: dict[str, Any] = {
        "transition": _TRANSITIONS[type(prediction)],
        "action_conditional": prediction.action_conditional,
    }
    if isinstance(prediction, MLPPrediction):
        arguments["transition_sizes"] = prediction.transition_sizes
    if isinstance(prediction, ConvPrediction):
        arguments["feature_map"] = _feature_map(config, spec)
    return arguments


def _feature_map(config: AgentConfig, spec: EnvironmentSpec) -> tuple[int, int, int]:
    """Return the shape of the feature map that convolutions predict."""
    network, torso = config.network, torso_name(config, spec)
    if torso == "mlp":
        raise ValueError(
            f"self_prediction: got 'conv' and observations of shape {spec.observation.shape} with the torso mlp, whose "
            "features have no spatial shape. Try --self-prediction mlp, or a torso for images."
        )
    has_own = _head_has_hidden_layer(config)
    if len(network.hidden_sizes) > 1 or not has_own:
        raise ValueError(
            f"self_prediction: got 'conv' with hidden_sizes {network.hidden_sizes}, but "
            f"{'the first layers are' if has_own else 'these layers are'} between the convolutions and the features; "
            "expected one layer, which belongs to the head. Try --projection shared and one layer, such as "
            "--hidden-sizes 512."
        )
    return networks.feature_map_shape(torso, spec.observation.shape, network.torso_width)


def _projection(config: AgentConfig) -> Any:
    return "none" if config.self_prediction is None else config.self_prediction.projection


def _refuse_unread(config: AgentConfig, lowering: networks.Lowering) -> None:
    """Raise ValueError if a field is set that only the built-in network reads."""
    plain = type(config.network)()
    fields: list[tuple[str, Any, tuple[Any, ...]]] = [
        (name, getattr(config.network, name), (getattr(plain, name),)) for name in _OF_BUILT_IN_NETWORK
    ]
    fields += [
        (name, getattr(config.head, name), values)
        for name, values in _OF_BUILT_IN_HEADS.items()
        if hasattr(config.head, name)
    ]
    prediction = config.self_prediction
    if prediction is not None:
        fields += [
            (name, getattr(prediction, name), (getattr(type(prediction)(), name),))
            for name in ("action_conditional", "projection", "transition_sizes")
            if hasattr(prediction, name)
        ]
    for name, value, allowed in [*fields, ("lowering", lowering, ("convolution",))]:
        if value not in allowed:
            raise ValueError(
                f"{name}: got {value!r}, which only the built-in network reads, and network= replaces it; expected "
                f"{' or '.join(map(repr, allowed))}. Build {name} into the network, and leave the field out."
            )


def network_arguments(config: AgentConfig, spec: EnvironmentSpec) -> dict[str, Any]:
    """Return the arguments of :func:`polyak.networks.make_network` for an agent, as JSON types.

    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> network_arguments(AgentConfig(), spec)
    {'num_actions': 2, 'torso': 'mlp', 'hidden_sizes': [120, 84], 'activation': 'relu', 'head': 'q', 'dueling': False}
    """
    head, core = config.head, config.network.core
    arguments: dict[str, Any] = {
        "num_actions": spec.num_actions,
        "torso": torso_name(config, spec),
        "hidden_sizes": list(config.network.hidden_sizes),
        "activation": config.network.activation,
        "head": HEADS[type(head)].name,
    }
    names = ("dueling", "num_atoms", "v_min", "v_max", "num_quantiles", "num_members", "prior_scale", "num_iterations")
    arguments |= {name: getattr(head, name) for name in names if hasattr(head, name)}
    if getattr(head, "noisy_sigma", None) is not None:
        arguments |= {"noisy": True, "noisy_sigma": getattr(head, "noisy_sigma")}  # noqa: B009
    others = {
        "torso_width": (config.network.torso_width, 1),
        "normalize": (config.network.normalize_features, False),
        "projection": (_projection(config), "none"),
        "lstm_size": (None if core is None else core.lstm_size, None),
    }
    return arguments | {name: value for name, (value, default) in others.items() if value != default}


def torso_name(config: AgentConfig, spec: EnvironmentSpec) -> str:
    """Return the name of the torso; the observations decide ``auto``.

    Raises:
        ValueError: if a torso for images gets observations of another shape than ``[H, W, C]``, or if ``torso_width``
            is set for a torso without convolutions.

    >>> torso_name(AgentConfig(), EnvironmentSpec(jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8), num_actions=2))
    'nature'
    """
    torso, width, shape = config.network.torso, config.network.torso_width, spec.observation.shape
    if torso not in ("auto", "mlp") and len(shape) != 3:
        raise ValueError(
            f"torso: got {torso!r} and observations of shape {shape}; expected images, [height, width, channels]. Try "
            "--torso auto, which is mlp for this shape."
        )
    if torso == "auto":
        torso = "nature" if len(shape) == 3 else "mlp"
    if torso == "mlp" and width != 1:
        raise ValueError(
            f"torso_width: got {width} with the torso mlp, which has no convolutions; expected 1. Try --hidden-sizes, "
            "or a torso for images."
        )
    return torso


def check_output(config: AgentConfig, network: Network, spec: EnvironmentSpec) -> None:
    """Check that a network's output fits the actions and the head, without computing it.

    Raises:
        ValueError: if the output does not fit.
        TypeError: if the output is not a ``ValueOutput``.
    """
    observation = jax.ShapeDtypeStruct((1, *spec.observation.shape), spec.observation.dtype)

    def output(key: jax.Array, observation: jax.Array) -> networks.ValueOutput:
        variables = Variables(*network.init(key, observation))
        seen = TimeStep(observation, jnp.zeros(1), jnp.ones(1, bool), (), jnp.zeros(1, jnp.int32))
        return forward(network, variables, None, seen, network.initial_recurrent_state(1))[0]

    found = jax.eval_shape(output, jax.random.key(0), observation)
    if found.q_values.shape != (1, spec.num_actions):
        raise ValueError(
            f"network: its q_values have shape {found.q_values.shape} for one observation of shape "
            f"{spec.observation.shape}; expected (1, {spec.num_actions}), a value for each of the environment's "
            f"{spec.num_actions} actions. Build the network with num_actions={spec.num_actions}."
        )
    kind = HEADS[type(config.head)]
    size = getattr(config.head, kind.size) if kind.size else 0
    for field, shape_of in kind.fields.items():
        leaf, expected = getattr(found, field), shape_of(spec.num_actions, size)
        if isinstance(leaf, tuple):
            raise ValueError(
                f"network: its ValueOutput has no {field}, from which the head {type(config.head).__name__} learns; "
                f"expected an array. Return ValueOutput(q_values=..., {field}=...), or choose another head."
            )
        if leaf.shape != expected:
            raise ValueError(
                f"network: its {field} have shape {leaf.shape} for one observation; expected {expected}, with "
                f"{kind.size}={size} of the config. Build the network with {kind.size}={size}, or set {kind.size}."
            )
