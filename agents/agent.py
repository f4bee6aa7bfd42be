"""Make an agent from a config: a network, the terms of a loss, an optimizer and named targets."""

import functools
import math
import numbers
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp

from .. import networks, updates
from ..networks import Network
from ..networks.prediction import projected_by
from ..replay.types import EnvironmentSpec, Sample, Sequence
from ..updates import LearnerState, LossOutput, Target, Variables
from .acting import greedy_action, make_acting
from .agent_network import check_output, make_networks
from .augmentation import augment_sample, make_augmentation
from .config import AgentConfig
from .optimizers import make_optimizer
from .resets import make_resets
from .shifts import make_shifts
from .support import make_calibration
from .terms import make_self_prediction_term, make_value_term
from .types import AVERAGE, ENCODER, MAIN_TARGET, NO_NUMBERS, Agent, AgentNumbers, Term, TermOutput, Views
from .views import features_tm1, look, steps_of, values_tm1

_VALUE, _SELF_PREDICTION = "value", "self_prediction"
_ABOVE_FEATURES = ("head", "prior", "embedding", "transition", "predictor")


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
    numbers: AgentNumbers = NO_NUMBERS,
) -> Agent:
    """Make an agent.

    The loss is the value term plus the weighted sum of ``terms``, all weighted by the sample's importance weights.

    Args:
        config: Config of the agent.
        spec: Observations of the agent, after frame stacking, and the number of actions.
        total_learner_steps: Number of learner steps of the run, over which schedules of the learning rate and of target
            rules change.
        environment_steps_per_learner_step: Number of environment steps per learner step, which converts periods in
            environment steps, such as ``500env``.
        lowering: Lowering of convolutions (see :class:`polyak.networks.Conv2D`).
        network: Network that replaces the built-in network: the result of :func:`polyak.networks.compose`, or a Haiku
            transform of ``observation -> ValueOutput``. The default is :func:`polyak.networks.make_network` with the
            config.
        module_state: Source of the target network's module state: ``copied`` with the parameters, or ``own``, from the
            target network's own forward passes. The module state of a target ``encoder`` is always copied.
        terms: Mapping from name to weight and term, added to the value term.
        numbers: Numbers that replace those of the config and may be traced, so that one compiled program trains agents
            of different numbers.

    Raises:
        ValueError: if a part of the config does not fit the observations, a rule or a period does not parse, a part to
            reset is not in the network, the network's output does not fit the head or the actions, a field is set that
            a given network does not read, a term has the name of a built-in term, a weight is not finite, or a term
            does not return ``[B]`` losses.
        TypeError: if the network does not return a ``ValueOutput``, ``terms`` contains anything but weights and terms,
            or a term does not return a ``TermOutput``.

    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> agent = make_agent(AgentConfig(target="incremental:0.005"), spec, total_learner_steps=1000)
    >>> state = agent.init(jax.random.key(0))
    >>> str(agent.targets["q"].rule), state.params["head/q_values"]["w"].shape
    ('incremental:0.005', (84, 2))
    """
    network, acting_network = make_networks(config, spec, network, lowering)
    check_output(config, network, spec)
    named = make_targets(config, total_learner_steps, environment_steps_per_learner_step, module_state)
    named |= {name: named[name]._replace(rule=rule) for name, rule in numbers.rules.items()}
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
        views, state, own = look(
            network, key, online, slow, own_state, sample, burn_in, prediction, config.target_role is not None
        )
        total, priorities, metrics = _sum_terms(weighted, term_key, views)
        return jnp.mean(sample.weights * total), LossOutput(state, own, priorities, metrics)

    optimizer = make_optimizer(config, total_learner_steps, numbers.learning_rate)
    learner = updates.learner(loss, optimizer, named, skip_nonfinite=config.skip_nonfinite)

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

    def output(name: str, variables: Variables, sample: Sample) -> tuple[jax.Array, jax.Array]:
        if name == ENCODER:
            return features(variables, sample)
        values = values_tm1(network, variables, sample, burn_in).q_values
        return values.reshape(-1, values.shape[-1]), steps_of(sample, burn_in)[0].learns.reshape(-1)

    acts_with = MAIN_TARGET if config.act_with == "target" else None
    acting_target = None if acts_with is None else named[acts_with]
    initial_recurrent_state, act, evaluate_act, q_values = make_acting(config, acting_network, acting_target)
    # A run evaluates their shapes before it compiles them; jax.jit caches the trace and inlines it in the caller.
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
        output=output,
        periodic={
            **make_resets(config, init, total_learner_steps, environment_steps_per_learner_step),
            **make_shifts(config, init, environment_steps_per_learner_step),
        },
        acts_with=acts_with,
        q_values=q_values,
    )


def make_targets(
    config: AgentConfig,
    total_learner_steps: int | None = None,
    environment_steps_per_learner_step: Fraction | None = None,
    module_state: Literal["copied", "own"] = "copied",
) -> dict[str, Target]:
    """Make the targets of an agent: the main target, and the encoder and the Polyak average if the config has them.

    Raises:
        ValueError: if a rule does not parse or does not fit the config; the message names the field.

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
                f"{error} Only self-prediction reads an {ENCODER}: leave it out of the target, or set self_prediction."
            ) from None
        raise
    if MAIN_TARGET not in rules:
        raise ValueError(
            f"target: got {config.target!r}, which has no rule for {MAIN_TARGET}, the target that values are learnt "
            f"from. Write this rule first, as in 'periodic:200 {config.target}'."
        )
    if ENCODER in rules and prediction is not None and not prediction.stop_gradient:
        others = " ".join(word for word in config.target.split() if not word.startswith(ENCODER))
        raise ValueError(
            f"target: got {config.target!r}, but without stop_gradient the online network's features are predicted "
            f"and no {ENCODER} is read. Try --target {others!r} with it, or --stop-gradient."
        )
    targets = {MAIN_TARGET: Target(rules[MAIN_TARGET], module_state=module_state)}
    if ENCODER in rules and prediction is not None:
        select = functools.partial(encoder_of, also=projected_by(prediction.projection))
        targets[ENCODER] = Target(rules[ENCODER], select=select)
    try:
        average = updates.parse(config.average, **options)
    except ValueError as error:
        raise ValueError(f"average: {error}") from None
    if config.act_with == "target" and not updates.is_none(average):
        raise ValueError(
            f"act_with: got 'target', and average is {config.average!r}, which would be evaluated instead of the "
            "network that acts; expected one of the two. Try --average none, or --act-with online."
        )
    if config.act_with == "target" and str(rules[MAIN_TARGET]) in ("none", "frozen"):
        raise ValueError(
            f"act_with: got 'target' with target {config.target!r}, which is the online network under none, and never "
            "learns under frozen. Give another rule, such as --target incremental:0.005, or --act-with online."
        )
    _check_role(config, rules[MAIN_TARGET])
    return targets | ({} if updates.is_none(average) else {AVERAGE: Target(average)})


def _check_role(config: AgentConfig, rule: updates.Rule) -> None:
    """Check that the main target differs from the online network if the value loss measures their distance."""
    if config.target_role is None or isinstance(rule, updates.Partition):
        return
    if str(rule) in ("none", "periodic:1"):
        raise ValueError(
            f"target: got {str(rule)!r}, under which the target network equals the online network, and target_role is "
            "not bootstrap, so that it has no effect; expected a slower rule. Try --target periodic:1000, or "
            "--target-role bootstrap."
        )


def encoder_of(tree: Mapping[str, Any], also: Collection[str] = ()) -> dict[str, Any]:
    """Select the modules that compute features, which are below the head.

    Args:
        tree: Parameters or module state, by module.
        also: Names of further modules, such as the modules of a projection.

    >>> sorted(encoder_of({"torso/linear": {}, "head/mlp/~/linear_0": {}, "head/q_values": {}}))
    ['torso/linear']
    """
    return {name: leaves for name, leaves in tree.items() if name in also or name.split("/")[0] not in _ABOVE_FEATURES}


def _prediction_terms(config: AgentConfig) -> dict[str, tuple[float, Term]]:
    prediction = config.self_prediction
    if prediction is None:
        return {}
    return {_SELF_PREDICTION: (prediction.prediction_weight, make_self_prediction_term(config))}


def _check_terms(terms: Mapping[str, tuple[float, Term]]) -> None:
    for own in (_VALUE, _SELF_PREDICTION):
        if own in terms:
            raise ValueError(
                f"terms: got the name {own!r}, which is the name of the agent's own {own.replace('_', '-')} term; "
                "expected another name. Rename the term; it is added to the agent's own terms."
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
    """Compute the weighted sum ``[B]`` of all terms; return it with the value term's priorities and all metrics."""
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
