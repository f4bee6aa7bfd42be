"""Conversion of the flat configs of version 0.1.0, to evaluate, compare and export its finished runs."""

from collections.abc import Mapping
from typing import Any

from ...agents import config as agents
from ...agents import loop_config as loops
from ...agents import optimizer_parts as optimizers
from ...agents.fields import check_name
from ...agents.presets import AGENTS, Configs
from ...agents.schedules import Schedule
from .config import RUN_LEAVES, RunConfig

_STREAMS = ("dueling", "noisy", "noisy_sigma")
_SUPPORT = ("num_atoms", "v_min", "v_max")
# Fields of an agent in version 0.1.0.
_FIELDS = (
    *("hidden_sizes", "torso", "activation", "head", *_STREAMS, *_SUPPORT, "num_quantiles", "num_heads"),
    *("mask_probability", "prior_scale", "memory", "lstm_size", "double", "loss", "value_rescaling"),
    *("munchausen", "munchausen_weight", "munchausen_temperature", "munchausen_clip", "augmentation"),
    *("discount", "n_steps", "batch_size", "frame_stack", "sequence_length", "burn_in", "sequence_period"),
    *("priority_exponent", "importance_exponent_initial", "importance_exponent_final"),
    *("optimizer", "optimizer_epsilon", "learning_rate", "learning_rate_schedule", "max_gradient_norm"),
    *("skip_nonfinite", "target", "average", "replay_capacity", "learning_starts", "train_every", "learner_steps"),
    *("epsilon_initial", "epsilon_final", "epsilon_fraction", "normalize_observations", "normalize_rewards"),
)
_RENAMED = {"dqn": "n_step_double_dqn"}


def config_from_0_1_0(fields: Mapping[str, Any]) -> RunConfig:
    """Convert the JSON of version 0.1.0 to a config: the fields of the run, with the agent's name and fields below it.

    Raises:
        ValueError: if a field is missing or unknown, or a value is out of range; the message has the path.
        TypeError: if a value does not have the type of its field.
    """
    agent = fields.get("agent")
    if not isinstance(agent, Mapping):
        raise TypeError(f"agent: got {agent!r}; expected an object: the agent's name and its fields.")
    old = agent.get("name")
    name = check_name(_RENAMED.get(str(old), old), AGENTS, "agent.name")
    own = {key: value for key, value in fields.items() if key != "agent"}
    for key in own:
        check_name(key, RUN_LEAVES, "field of the config")
    if not own.get("workers"):
        own.pop("worker_timeout", None)  # not used without workers
    configs = configs_from_0_1_0({key: value for key, value in agent.items() if key != "name"})
    return RunConfig(configs.agent, configs.loop, name, **own)


def configs_from_0_1_0(agent_fields: Mapping[str, Any]) -> Configs:
    """Convert the 51 flat fields of an agent of version 0.1.0 to the configs of agent and loop.

    Raises:
        ValueError: if a field is missing or unknown, or a value is out of range; the message has the path.
        TypeError: if a value does not have the type of its field.
    """
    for name in agent_fields:
        check_name(name, _FIELDS, "field of agent")
    for name in _FIELDS:
        if name not in agent_fields:
            raise ValueError(f"agent.{name}: missing; a config of polyak 0.1.0 has it. Was the file changed by hand?")
    return Configs(_agent(agent_fields), _loop(agent_fields))


def _agent(old: Mapping[str, Any]) -> agents.AgentConfig:
    core = agents.LSTM(old["lstm_size"], old["burn_in"]) if old["memory"] == "lstm" else None
    return agents.AgentConfig(
        network=agents.Network(
            torso=old["torso"], hidden_sizes=old["hidden_sizes"], activation=old["activation"], core=core
        ),
        head=_head(old),
        bootstrap=agents.Munchausen(*(old[f"munchausen_{name}"] for name in ("weight", "temperature", "clip")))
        if old["munchausen"]
        else agents.Greedy(old["double"]),
        optimizer=_optimizer(old),
        learning_rate=_learning_rate(old),
        **{name: old[name] for name in ("augmentation", "max_gradient_norm", "skip_nonfinite", "target", "average")},
    )


def _head(old: Mapping[str, Any]) -> agents.Head:
    streams = {"dueling": old["dueling"], "noisy_sigma": old["noisy_sigma"] if old["noisy"] else None}
    support = {name: old[name] for name in _SUPPORT}
    match old["head"]:
        case "q":
            return agents.Scalar(error=old["loss"], value_rescaling=old["value_rescaling"], **streams)
        case "categorical":
            return agents.Categorical(**support, **streams)
        case "hl_gauss":
            return agents.HLGauss(**support, **streams)
        case "quantile":
            return agents.Quantile(old["num_quantiles"], **streams)
        case "implicit_quantile":
            return agents.ImplicitQuantile(old["num_quantiles"], **streams)
        case "ensemble":
            return agents.Ensemble(old["num_heads"], old["mask_probability"], old["prior_scale"], old["loss"])
    raise ValueError(f"agent.head: got {old['head']!r}; expected a head of polyak 0.1.0.")


def _optimizer(old: Mapping[str, Any]) -> agents.Optimizer:
    match check_name(old["optimizer"], ["adam", "adamw", "rmsprop", "sgd"], "agent.optimizer"):
        case "adam":
            return optimizers.Adam(old["optimizer_epsilon"])
        case "adamw":
            return optimizers.AdamW(old["optimizer_epsilon"])
        case "rmsprop":
            return optimizers.RMSProp(old["optimizer_epsilon"])
    return optimizers.SGD()


def _learning_rate(old: Mapping[str, Any]) -> Schedule:
    kind = check_name(old["learning_rate_schedule"], ["constant", "linear", "cosine"], "agent.learning_rate_schedule")
    rate = Schedule.of(old["learning_rate"], "agent.learning_rate")
    return rate if kind == "constant" else Schedule.of(f"{kind}({rate},0,100%)", "agent.learning_rate")


def _loop(old: Mapping[str, Any]) -> loops.LoopConfig:
    sequences = old["sequence_length"]
    draw = loops.Draw(
        batch_size=old["batch_size"],
        n_steps=old["n_steps"],
        discount=old["discount"],
        windows=loops.Sequences(sequences, old["sequence_period"]) if sequences else loops.Transitions(),
        sampling=_sampling(old),
    )
    epsilon = _linear(old["epsilon_initial"], old["epsilon_final"], old["epsilon_fraction"])
    return loops.LoopConfig(
        draw,
        loops.ReplayConfig(old["replay_capacity"], old["frame_stack"]),
        loops.Cadence(old["learning_starts"], old["train_every"], old["learner_steps"]),
        loops.Exploration(epsilon),
        loops.Normalization(old["normalize_observations"], old["normalize_rewards"]),
    )


def _sampling(old: Mapping[str, Any]) -> loops.Uniform | loops.Prioritized:
    if not old["priority_exponent"]:
        return loops.Uniform()
    importance = _linear(old["importance_exponent_initial"], old["importance_exponent_final"], 1.0)
    return loops.Prioritized(old["priority_exponent"], importance)


def _linear(initial: float, final: float, fraction: float) -> Schedule:
    """Linear schedule over a fraction of the run; without a fraction or a change, the constant final value."""
    if initial == final or not fraction:
        return Schedule.of(final)
    return Schedule.of(str(Schedule(initial, final, fraction, relative=True, kind="linear")))
