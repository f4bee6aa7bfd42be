"""The config of a run: one frozen dataclass, to and from JSON."""

import dataclasses
import difflib
import functools
import itertools
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import tyro

from ...agents import AGENTS, AgentConfig

LoggerName = Literal["csv", "tensorboard", "wandb"]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What one run is; with the versions of the libraries it says all that the run depends on.

    Attributes:
        agent: the agent's own config.
        agent_name: the name in ``AGENTS`` that the agent's config began with; records and folders are called by it.
        env: id of a Gymnasium environment.
        steps: environment steps, over all environments.
        num_envs: environments stepped together.
        workers: processes that the environments are dealt out over; 0 for none but the run's own.
        worker_timeout: the seconds that a step of a worker process may take; one that takes longer has failed.
        on_env_failure: what becomes of a run when a worker process raises, dies or hangs: ``stop``, saved, with an
            error; or ``restart`` of that process, whose environments begin new episodes (counted in env_restarts).
        seed: of everything that is random, a non-negative integer.
        log_every: environment steps between two lines of metrics.
        checkpoint_every: environment steps between two checkpoints.
        evaluation_episodes: episodes of the evaluation at the end.
        replay_storage: where the replay's observations lie: ``memory``, or ``mmap``, a file in the run's folder that is
            mapped into memory, for more of them than memory holds; all else of the replay stays in memory.
        action_mask: whether the environment says in info["action_mask"] which actions are legal; no other is then
            taken or bootstrapped from.
        initial: warm start: a finished run, an export, or a .npz or .safetensors file of either, whose parameters are
            the start of this run's network and of its targets. None: parameters drawn by the seed.
        loggers: what is written of the metrics besides metrics.jsonl: csv (metrics.csv), tensorboard (tensorboard/),
            wandb (Weights & Biases, offline unless WANDB_MODE says otherwise); none is fine.
    """

    agent: AgentConfig = AGENTS["dqn"]
    agent_name: tyro.conf.Suppress[str] = "dqn"
    env: str = "CartPole-v1"
    steps: int = 50_000
    num_envs: int = 1
    workers: int = 0
    worker_timeout: float = 60.0
    on_env_failure: Literal["stop", "restart"] = "stop"
    seed: int = 0
    log_every: int = 500
    checkpoint_every: int = 10_000
    evaluation_episodes: int = 20
    replay_storage: Literal["memory", "mmap"] = "memory"
    action_mask: bool = False
    initial: str | None = None
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")

    def __post_init__(self) -> None:
        """Raises ValueError or TypeError where a field is out of range or two contradict each other."""
        known(self.agent_name, AGENTS, "agent")
        counts = ("steps", "num_envs", "log_every", "checkpoint_every", "evaluation_episodes")
        for name, lowest in [*((name, 1) for name in counts), ("seed", 0), ("workers", 0)]:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected an integer >= {lowest}.")
            if value < lowest:
                raise ValueError(f"{name}: got {value}; expected an integer >= {lowest}.")
        if self.seed >= 2**32:
            raise ValueError(f"seed: got {self.seed}; expected an integer below 2**32.")
        if self.workers > self.num_envs:
            raise ValueError(
                f"workers: got {self.workers} for {self.num_envs} environments; expected at most one for each. "
                f"Try --num-envs {self.workers}, or fewer workers."
            )
        if not 0 < self.worker_timeout < float("inf"):
            raise ValueError(f"worker_timeout: got {self.worker_timeout}; expected a finite number of seconds > 0.")
        if self.on_env_failure not in ("stop", "restart"):
            raise ValueError(f"on_env_failure: got {self.on_env_failure!r}; expected stop or restart.")
        if self.replay_storage not in ("memory", "mmap"):
            raise ValueError(f"replay_storage: got {self.replay_storage!r}; expected memory or mmap.")
        if self.on_env_failure == "restart" and not self.workers:
            raise ValueError(
                "on_env_failure: got 'restart' and no workers; only an environment in a process of its own can be "
                "restarted. Try workers 1."
            )
        if not isinstance(self.initial, str | None):
            raise TypeError(f"initial: got {self.initial!r}; expected a path as text, or None. Give str(path).")
        for name in self.loggers:
            known(name, typing.get_args(LoggerName), "loggers")
        if len(set(self.loggers)) < len(self.loggers):
            raise ValueError(f"loggers: got {', '.join(self.loggers)}; expected each at most once.")
        per_environment = -(-self.agent.replay_capacity // self.num_envs)
        needed = max(self.agent.n_steps, 2)
        if self.agent.sequence_length:  # one must begin among the steps that are kept, however long the episode
            needed = max(needed, self.agent.burn_in + self.agent.sequence_length, self.agent.sequence_period + 1)
        if needed > per_environment:
            raise ValueError(
                f"replay_capacity: got {self.agent.replay_capacity} for {self.num_envs} environments, "
                f"{per_environment} steps for each; expected at least {needed} for each, the largest of 2, n_steps, "
                "and with sequences burn_in + sequence_length and sequence_period + 1. "
                f"Try replay_capacity {needed * self.num_envs}, or fewer environments."
            )
        if self.agent.learning_starts >= self.steps:
            raise ValueError(
                f"learning_starts: got {self.agent.learning_starts}, and the run ends at step {self.steps}, so nothing "
                f"would be learnt; expected less than steps. Try learning_starts {self.steps // 10}, or more steps."
            )


def without_workers(config: RunConfig) -> RunConfig:
    """The same run with its environments in this process, which leads to the same records and parameters.

    >>> without_workers(RunConfig(num_envs=2, workers=2)).workers
    0
    """
    return dataclasses.replace(config, workers=0, on_env_failure="stop")


def to_json(config: RunConfig) -> dict[str, Any]:
    """The config as JSON's own types; ``agent`` gets the agent's name beside its fields.

    >>> to_json(RunConfig(steps=2000))["agent"]["name"], to_json(RunConfig(steps=2000))["steps"]
    ('dqn', 2000)
    """
    fields = dataclasses.asdict(config)
    return {"agent": {"name": fields.pop("agent_name"), **fields.pop("agent")}, **fields}


def from_json(fields: Mapping[str, Any]) -> RunConfig:
    """Reads a config from JSON; the inverse of :func:`to_json`. Fields that are not given are those of the named agent.

    Raises:
        ValueError: an unknown agent or field (the message names the closest), or a value out of range.
        TypeError: a value of another type than the field's.

    >>> from_json(to_json(RunConfig(seed=3))) == RunConfig(seed=3)
    True
    """
    agent_fields = fields.get("agent", {})
    if not isinstance(agent_fields, Mapping):
        raise TypeError(f"agent: got {agent_fields!r}; expected an object: the agent's name and its fields.")
    agent_fields = dict(agent_fields)
    name = known(agent_fields.pop("name", "dqn"), AGENTS, "agent")
    agent = _read(AGENTS[name], agent_fields, "agent.")
    run_fields = {key: value for key, value in fields.items() if key != "agent"}
    if "agent_name" in run_fields:
        raise ValueError('agent_name: expected under "agent", as "name". Write {"agent": {"name": ...}, ...}.')
    return typing.cast(RunConfig, _read(RunConfig(agent, name), run_fields, ""))


def known(name: Any, names: typing.Iterable[str], what: str) -> str:
    """Returns ``name`` if it is one of ``names``.

    Raises:
        ValueError: it is none; the message names the closest.

    >>> known("dqm", ["dqn"], "agent")
    Traceback (most recent call last):
    ValueError: agent: got 'dqm'; expected one of dqn. Did you mean 'dqn'?
    """
    names = list(names)
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        begins_alike = functools.partial(_common_prefix, str(name))
        hint = f" Did you mean {max(close, key=begins_alike)!r}?" if close else ""
        raise ValueError(f"{what}: got {name!r}; expected one of {', '.join(names)}.{hint}")
    return str(name)


def _common_prefix(one: str, other: str) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _read(default: Any, fields: Mapping[str, Any], prefix: str) -> Any:
    annotations = typing.get_type_hints(type(default))
    values = {}
    for name, value in fields.items():
        known(name, annotations, f"field of {prefix.rstrip('.') or 'the config'}")
        value = tuple(value) if isinstance(value, list) else value
        takes_float = float in (annotations[name], *typing.get_args(annotations[name]))
        value = float(value) if takes_float and type(value) is int else value
        if not _fits(value, annotations[name]):
            raise TypeError(f"{prefix}{name}: got {value!r} ({type(value).__name__}); expected {annotations[name]}.")
        values[name] = value
    return dataclasses.replace(default, **values)


def _fits(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    return type(value) is annotation
