"""The one maker of agents: a network, the terms of a loss, an optimizer and named targets, from a config."""

import functools
import math
import numbers
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp

from .. import networks, updates
from ..networks import Network
from ..replay.types import EnvironmentSpec, Sample, Sequence, TimeStep
from ..updates import LearnerState, LossOutput, Target, Variables
from .acting import forward, greedy_action, make_acting
from .augmentation import augment_sample, make_augmentation
from .config import AgentConfig, Ensemble, MLPPrediction
from .heads import HEADS
from .optimizers import make_optimizer
from .resets import make_resets
from .support import make_calibration
from .terms import make_self_prediction_term, make_value_term
from .types import AVERAGE, ENCODER, MAIN_TARGET, Agent, Term, TermOutput, Views
from .views import features_tm1, look, values_tm1

_VALUE, _SELF_PREDICTION = "value", "self_prediction"
_ABOVE_FEATURES = ("head", "prior", "embedding", "transition")
# Fields of the config's network that the built-in network alone reads.
_OF_BUILT_IN_NETWORK = ("torso", "hidden_sizes", "activation")
# Fields of heads that the built-in network alone reads, and the values at which a given network is as they say.
_OF_BUILT_IN_HEADS = {
    "dueling": (False,),
    "noisy_sigma": (None,),
    "v_min": (None,),
    "v_max": (None,),
    "prior_scale": (Ensemble().prior_scale, 0.0),
}


def make_agent(
    config: AgentConfig,
    spec: EnvironmentSpec,
    *,
    total_learner_steps: int | None = None,
    environment_steps_per_learner_step: Fraction | None = None,
    lowering: networks.Lowering = "convolution",
    network: Network | hk.Transformed | hk.TransformedWithState | None = None,
    module_state: Literal["copied", "own"] = "copied",
    terms: Mapping[str, tuple[float, Term]] = {},
) -> Agent:
    """Makes an agent.

    The loss is the value term plus the weighted sum of ``terms``, each weighted by the sample's importance weights.

    Args:
        config: Config of the agent.
        spec: Observations as the agent sees them, frames stacked, and the number of actions.
        total_learner_steps: Number of learner steps of the run, over which schedules of the learning rate and of target
            rules change.
        environment_steps_per_learner_step: Number of environment steps for each learner step, by which periods of
            target rules in environment steps, such as ``500env``, are converted.
        lowering: Lowering of convolutions (see :class:`polyak.networks.Conv2D`).
        network: Network in the place of the built-in one: the result of :func:`polyak.networks.compose`, or a Haiku
            transform of ``observation -> ValueOutput``. By default :func:`polyak.networks.make_network` from the
            config.
        module_state: Module state of the target network: ``copied`` with the parameters, or its ``own``, from its own
            forward passes. That of a target ``encoder`` is copied.
        terms: Name to weight and term, added to the value term.

    Raises:
        ValueError: if a part of the config does not suit the observations, the text of a rule or of a period does not
            parse, a part that is reset is none of the network's, the network's output does not fit the head or the
            actions, a field is set that a given network does not read, a term has the name of one of the agent's own, a
            weight is not finite, or a term does not return ``[B]`` losses.
        TypeError: if the network returns something other than a ``ValueOutput``, ``terms`` has something other than
            weights and terms, or a term returns something other than a ``TermOutput``.

    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> agent = make_agent(AgentConfig(target="incremental:0.005"), spec, total_learner_steps=1000)
    >>> state = agent.init(jax.random.key(0))
    >>> str(agent.targets["q"].rule), state.params["head/q_values"]["w"].shape
    ('incremental:0.005', (84, 2))
    """
    network, acting_network = _networks(config, spec, network, lowering)
    check_output(config, network, spec)
    named = make_targets(config, total_learner_steps, environment_steps_per_learner_step, module_state)
    burn_in, prediction = config.burn_in, config.self_prediction
    augment = make_augmentation(config.augmentation, spec.observation.shape)
    _check_terms(terms)
    weighted = {_VALUE: (1.0, make_value_term(config)), **_prediction_terms(config), **terms}
    own_state = frozenset(name for name, target in named.items() if target.module_state == "own")
    read = [name for name in named if name != AVERAGE]

    def loss(
        key: jax.Array, params: Any, state: Any, targets: Mapping[str, Variables], batch: Sample
    ) -> tuple[jax.Array, LossOutput]:
        key, *augment_keys, term_key = jax.random.split(key, 4)
        online, sample = Variables(params, state), augment_sample(augment, augment_keys, batch)
        slow = {name: targets[name] for name in read}
        views, state, own = look(network, key, online, slow, own_state, sample, burn_in, prediction)
        total, priorities, metrics = _sum_terms(weighted, term_key, views)
        return jnp.mean(sample.weights * total), LossOutput(state, own, priorities, metrics)

    learner = updates.learner(
        loss, make_optimizer(config, total_learner_steps), named, skip_nonfinite=config.skip_nonfinite
    )

    @jax.jit
    def init(key: jax.Array) -> LearnerState:
        observation = jnp.zeros((1, *spec.observation.shape), spec.observation.dtype)
        return learner.init(*network.init(key, observation))

    def greedy_actions(variables: Variables, sample: Sample) -> jax.Array:
        drawn = sample.transition
        values = values_tm1(network, variables, sample, burn_in).q_values
        if not isinstance(drawn, Sequence):
            return greedy_action(values[:, 0], drawn.action_mask_tm1)
        mask = drawn.action_mask if isinstance(drawn.action_mask, tuple) else drawn.action_mask[:, :-1]
        learns = drawn.valid & ((jnp.arange(drawn.valid.shape[1]) >= burn_in)[None] | drawn.first[:, None])
        return jnp.where(learns, greedy_action(values, mask), -1)

    def features(variables: Variables, sample: Sample) -> tuple[jax.Array, jax.Array]:
        return features_tm1(network, variables, sample, burn_in)

    initial_recurrent_state, act, evaluate_act = make_acting(config, acting_network)
    # A run asks for their shapes before it compiles them: jax.jit remembers a trace, and inlines it where it is called.
    learn, greedy = (jax.jit(function, inline=True) for function in (learner.step, greedy_actions))
    return Agent(
        init,
        initial_recurrent_state,
        act,
        learn,
        named,
        evaluate_act,
        greedy_actions=greedy,
        calibrate=make_calibration(config),
        burn_in=burn_in,
        future=0 if prediction is None else prediction.horizon,
        features=None if prediction is None else features,
        periodic=make_resets(config, init, total_learner_steps, environment_steps_per_learner_step),
    )


def network_arguments(config: AgentConfig, spec: EnvironmentSpec) -> dict[str, Any]:
    """Arguments of :func:`polyak.networks.make_network` for an agent, in JSON's own types.

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
    names = ("dueling", "num_atoms", "v_min", "v_max", "num_quantiles", "num_members", "prior_scale")
    arguments |= {name: getattr(head, name) for name in names if hasattr(head, name)}
    if getattr(head, "noisy_sigma", None) is not None:
        arguments |= {"noisy": True, "noisy_sigma": getattr(head, "noisy_sigma")}  # noqa: B009
    return arguments | ({"lstm_size": core.lstm_size} if core is not None else {})


def torso_name(config: AgentConfig, spec: EnvironmentSpec) -> str:
    """Name of the torso, with ``auto`` decided by the observations.

    Raises:
        ValueError: if a torso of images is to see observations of another shape than ``[H, W, C]``.

    >>> torso_name(AgentConfig(), EnvironmentSpec(jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8), num_actions=2))
    'nature'
    """
    torso, shape = config.network.torso, spec.observation.shape
    if torso not in ("auto", "mlp") and len(shape) != 3:
        raise ValueError(
            f"torso: got {torso!r} and observations of shape {shape}; expected images, [height, width, channels]. Try "
            "--torso auto, which is mlp for these."
        )
    if torso != "auto":
        return torso
    return "nature" if len(shape) == 3 else "mlp"


def make_targets(
    config: AgentConfig,
    total_learner_steps: int | None = None,
    environment_steps_per_learner_step: Fraction | None = None,
    module_state: Literal["copied", "own"] = "copied",
) -> dict[str, Target]:
    """Targets of an agent: the main one, and the Polyak average to evaluate with where the config asks for one.

    Raises:
        ValueError: if a rule's text does not parse; the message names the field.

    >>> {name: str(target.rule) for name, target in make_targets(AgentConfig(average="incremental:0.001")).items()}
    {'q': 'periodic:200', 'average': 'incremental:0.001'}
    """
    options: dict[str, Any] = {
        "horizon": total_learner_steps,
        "environment_steps_per_learner_step": environment_steps_per_learner_step,
    }
    prediction = config.self_prediction
    names = (MAIN_TARGET,) if prediction is None else (MAIN_TARGET, ENCODER)
    try:
        rules = updates.parse_named(config.target, names, **options)
    except ValueError as error:
        if prediction is None and f"the name '{ENCODER}'" in str(error):
            raise ValueError(
                f"{error} Self-prediction alone reads an {ENCODER}: leave it out of the target, or set self_prediction."
            ) from None
        raise
    if MAIN_TARGET not in rules:
        raise ValueError(
            f"target: got {config.target!r}, which has no rule of {MAIN_TARGET}, the target that values are learnt "
            f"from. Write it before the others, as in 'periodic:200 {config.target}'."
        )
    if ENCODER in rules and prediction is not None and not prediction.stop_gradient:
        raise ValueError(
            f"target: got {config.target!r} without stop_gradient, where the online network's features are predicted "
            f"and no {ENCODER} is read. Leave the {ENCODER} out, or set stop_gradient."
        )
    targets = {MAIN_TARGET: Target(rules[MAIN_TARGET], module_state=module_state)}
    if ENCODER in rules:
        targets[ENCODER] = Target(rules[ENCODER], select=encoder_of)
    try:
        average = updates.parse(config.average, **options)
    except ValueError as error:
        raise ValueError(f"average: {error}") from None
    return targets | ({} if updates.is_none(average) else {AVERAGE: Target(average)})


def encoder_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Modules below the head: what the features are computed with.

    >>> sorted(encoder_of({"torso/linear": {}, "head/q_values": {}}))
    ['torso/linear']
    """
    return {name: leaves for name, leaves in tree.items() if name.split("/")[0] not in _ABOVE_FEATURES}


def check_output(config: AgentConfig, network: Network, spec: EnvironmentSpec) -> None:
    """Checks that a network's output fits the actions and the head, without computing anything.

    Raises:
        ValueError: if it does not.
        TypeError: if it is no ``ValueOutput``.
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


def _networks(
    config: AgentConfig,
    spec: EnvironmentSpec,
    network: Network | hk.Transformed | hk.TransformedWithState | None,
    lowering: networks.Lowering,
) -> tuple[Network, Network]:
    """Network to learn with and network to act with; the built-in one acts on fractions that are evenly spaced."""
    if network is None:
        arguments = network_arguments(config, spec) | _prediction_arguments(config)
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


def _prediction_arguments(config: AgentConfig) -> dict[str, Any]:
    """Arguments of :func:`polyak.networks.make_network` for self-prediction, which nothing but learning needs."""
    prediction = config.self_prediction
    if prediction is None:
        return {}
    arguments: dict[str, Any] = {"transition": "linear", "action_conditional": prediction.action_conditional}
    if isinstance(prediction, MLPPrediction):
        arguments |= {"transition": "mlp", "transition_sizes": prediction.transition_sizes}
    return arguments


def _refuse_unread(config: AgentConfig, lowering: networks.Lowering) -> None:
    """Raises ValueError if a field is set that the built-in network alone reads, and a network is given."""
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
            for name in ("action_conditional", "transition_sizes")
            if hasattr(prediction, name)
        ]
    for name, value, allowed in [*fields, ("lowering", lowering, ("convolution",))]:
        if value not in allowed:
            raise ValueError(
                f"{name}: got {value!r}, which only the built-in network reads, and network= replaces that one; "
                f"expected {' or '.join(map(repr, allowed))}. Build {name} into the network, and leave the field out."
            )


def _prediction_terms(config: AgentConfig) -> dict[str, tuple[float, Term]]:
    prediction = config.self_prediction
    if prediction is None:
        return {}
    return {_SELF_PREDICTION: (prediction.prediction_weight, make_self_prediction_term(config))}


def _check_terms(terms: Mapping[str, tuple[float, Term]]) -> None:
    for own in (_VALUE, _SELF_PREDICTION):
        if own in terms:
            raise ValueError(
                f"terms: got the name {own!r}, which is that of the agent's own {own.replace('_', '-')} term; expected "
                "another name. Rename the term; it is added to the agent's own."
            )
    for name, pair in terms.items():
        if not (isinstance(pair, tuple) and len(pair) == 2 and callable(pair[1])):
            raise TypeError(
                f"terms.{name}: got a {type(pair).__name__}; expected a weight and a term. Try terms={{{name!r}: (1.0, "
                "term)}."
            )
        weight: Any = pair[0]
        if not (isinstance(weight, numbers.Real) and math.isfinite(weight)):
            raise ValueError(f"terms.{name}: got the weight {weight!r}; expected a finite number. Try 1.0.")


def _sum_terms(
    weighted: Mapping[str, tuple[float, Term]], key: jax.Array, views: Views
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Weighted sum ``[B]`` of all terms, the priorities of the value term, and all metrics."""
    batch, metrics = len(views.sample.weights), dict[str, jax.Array]()
    total: Any = 0.0
    priorities: Any = ()
    for number, (name, (weight, term)) in enumerate(weighted.items()):
        found = term(jax.random.fold_in(key, number), views)
        if not isinstance(found, TermOutput):
            raise TypeError(
                f"terms.{name}: got a {type(found).__name__}; expected a TermOutput. Return TermOutput(loss), with the "
                "loss of each transition or sequence, [B]."
            )
        if jnp.shape(found.loss) != (batch,):
            raise ValueError(
                f"terms.{name}: got a loss of shape {jnp.shape(found.loss)}; expected [B], ({batch},). Return the loss "
                "of each transition or sequence, without their mean."
            )
        total = weight * found.loss if number == 0 else total + weight * found.loss
        metrics |= found.metrics
        priorities = found.priorities if number == 0 else priorities
        metrics |= {f"loss/{name}": jnp.mean(found.loss)} if len(weighted) > 1 else {}
    return total, priorities, metrics
