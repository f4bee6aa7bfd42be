"""Config of a run: a frozen dataclass of parts, made from flat fields, and converted to and from JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...agents import parts
from ...agents.config import LSTM, AgentConfig, check_bounded
from ...agents.fields import Part, above, at_least, check_name, did_you_mean, number
from ...agents.loop_config import LoopConfig, Sequences
from ...agents.other_names import other_name
from ...agents.parts import bringers, leaves
from ...agents.presets import AGENTS, DEFAULT_AGENT, DEFAULT_PRESET, make_configs, own_leaves
from ...agents.settings import PRESETS
from ..environments.objects import imported_module, read_kwargs

FORMAT = 2  # format of the JSON; version 0.1.0 wrote none
LoggerName = Literal["csv", "tensorboard", "wandb", "trackio"]
_DEFAULT = make_configs()
_BEGINS_WITH = ("agent", "loop", "agent_name", "preset")


# Fields for the output of a run and for the processes of its environments; they do not affect learning.
CHANGES_NO_LEARNING = (
    "log_every",
    "checkpoint_every",
    "evaluation_episodes",
    "evaluate_every",
    "stop_at_return",
    "loggers",
    "workers",
    "worker_timeout",
    "on_env_failure",
    "replay_storage",
)


@dataclasses.dataclass(frozen=True)
class RunConfig(Part):
    """Config of a run. The config and the versions of the libraries determine the run.

    Attributes:
        agent: Config of the agent.
        loop: Config of the loop.
        agent_name: Name of the agent in ``AGENTS`` from which the config starts; shown in records and folder names.
        preset: Name of the preset in ``PRESETS`` from which the config starts.
        name: Name of the agent in folder names, figures and comparisons; empty for agent_name.
        agent_module: Module that registers agents with polyak.register_agent; none for no module.
        network: Network in place of the built-in one, module:make, a function from the observation spec to a polyak
            network or a Haiku transform; none for the built-in network.
        terms: Terms to add to the loss, NAME=WEIGHT*module:term.
        maker: Function to make the agent in place of polyak.agents.make_agent, module:make; none for make_agent.
        env: Environment, given by a Gymnasium id (CartPole-v1 or module:Name-v0) or by a class or function
            (module:MyEnv) of a module in the working directory or on Python's path.
        env_kwargs: Keyword arguments of the environment as a JSON object, for example {"size": 3}.
        wrappers: Wrappers of the environment, module:wrap, functions from an environment to an environment, the
            innermost first.
        steps: Number of environment steps, over all environments.
        num_envs: Number of environments that are stepped together.
        workers: Number of worker processes that step the environments; 0 steps them in the main process.
        worker_timeout: Number of seconds that a step of a worker process may take; a longer step is a failure.
        on_env_failure: Consequence of a worker process that raises, dies or hangs: stop to save the run and raise an
            error, or restart to replace the process, whose environments start new episodes (counted in env_restarts).
        seed: Seed of all random numbers.
        log_every: Number of environment steps between two lines of metrics.
        checkpoint_every: Number of environment steps between two checkpoints.
        evaluation_episodes: Number of episodes of each evaluation, during the run and at its end.
        evaluate_every: Number of environment steps between two evaluations during the run. None evaluates only at the
            end. The records contain the mean returns, and the parameters of the best evaluation are kept.
        stop_at_return: Mean return of an evaluation during the run that ends the run early; None never ends it early.
        replay_storage: Storage of the replay's observations: memory, or mmap for a memory-mapped file in the run's
            folder, which may be larger than memory. The rest of the replay stays in memory.
        action_mask: Whether the environment lists the legal actions in info["action_mask"]. Illegal actions are then
            neither taken nor used in bootstrap targets.
        initial: Source of a warm start: a finished run, an export, or a .npz or .safetensors file of either, whose
            parameters initialize the network and its targets. None initializes them randomly with the seed.
        initial_part: Part of the network that starts from initial: all, or encoder for the modules below the head,
            which a run of polyak pretrain can provide too.
        loggers: Writers of the metrics in addition to metrics.jsonl: csv (metrics.csv, episodes.csv), tensorboard
            (tensorboard/), wandb (Weights & Biases, offline unless WANDB_MODE is set), trackio (a local database); may
            be empty.
    """

    agent: AgentConfig = _DEFAULT.agent
    loop: LoopConfig = _DEFAULT.loop
    agent_name: str = DEFAULT_AGENT
    preset: str = DEFAULT_PRESET
    name: str = ""
    agent_module: str = "none"
    network: str = "none"
    terms: tuple[str, ...] = ()
    maker: str = "none"
    env: str = "CartPole-v1"
    env_kwargs: str = "{}"
    wrappers: tuple[str, ...] = ()
    steps: int = at_least(1, 50_000)
    num_envs: int = at_least(1, 1)
    workers: int = at_least(0, 0)
    worker_timeout: float = above(0, 60.0)
    on_env_failure: Literal["stop", "restart"] = "stop"
    seed: int = at_least(0, 0)
    log_every: int = at_least(1, 500)
    checkpoint_every: int = at_least(1, 10_000)
    evaluation_episodes: int = at_least(1, 20)
    evaluate_every: int | None = at_least(1, None)
    stop_at_return: float | None = number(None)
    replay_storage: Literal["memory", "mmap"] = "memory"
    action_mask: bool = False
    initial: str | None = None
    initial_part: Literal["all", "encoder"] = "all"
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")

    def __post_init__(self) -> None:
        """Check the fields, and fields and parts that exclude each other."""
        check_name(self.agent_name, AGENTS, "agent")
        check_name(self.preset, PRESETS, "preset")
        super().__post_init__()
        object.__setattr__(self, "env_kwargs", json.dumps(read_kwargs(self.env_kwargs), sort_keys=True))
        _check_environments(self)
        _check_windows(self)
        _check_resets(self)
        if self.agent.derives_support and not self.starts_whole:  # a warm start provides the support
            check_bounded(self.loop.draw.discount.extremes[1])
        check_seed(self.seed)
        check_loggers(self.loggers)
        if self.stop_at_return is not None and self.evaluate_every is None:
            raise ValueError(
                f"stop_at_return: got {self.stop_at_return} and no evaluation within the run. Try --evaluate-every "
                f"{max(self.steps // 10, 1)} with it."
            )
        if self.initial is None and self.initial_part != "all":
            raise ValueError(
                f"initial_part: got {self.initial_part!r} and no initial, so it has no effect. Try --initial RUN "
                "with it."
            )
        starts = self.loop.cadence.learning_starts
        if starts >= self.steps:
            way_out = f"--learning-starts {self.steps // 10}, or --steps {10 * starts}."
            if self.loop.replay.frame_stack > 1 and self.env == RunConfig.env:  # a preset for images
                way_out = f"--env ALE/Breakout-v5 --steps {10 * starts}; {self.env} has no images to stack."
            raise ValueError(
                f"learning_starts: got {starts}, but the run ends at step {self.steps}, so it would not learn; "
                f"expected less than steps. Try {way_out}"
            )

    @property
    def label(self) -> str:
        """Displayed name of the agent."""
        return self.name or self.agent_name

    @property
    def starts_whole(self) -> bool:
        """Whether the whole network starts from the parameters of another run."""
        return self.initial is not None and self.initial_part == "all"


def check_seed(seed: int) -> None:
    """Check that a seed fits into 32 bits.

    Raises:
        ValueError: if it does not.

    >>> check_seed(3)
    """
    if seed >= 2**32:
        raise ValueError(f"seed: got {seed}; expected an integer below 2**32. Try --seed {seed % 2**32}.")


def check_loggers(loggers: Sequence[str]) -> None:
    """Check that no logger is named twice.

    Raises:
        ValueError: if a logger is named twice.

    >>> check_loggers(("csv", "wandb"))
    """
    if len(set(loggers)) < len(loggers):
        once = dict.fromkeys(loggers)
        raise ValueError(
            f"loggers: got {', '.join(loggers)}; expected each at most once. Try --loggers {' '.join(once)}."
        )


# Names of the leaves of a run that belong to neither the agent nor the loop.
RUN_LEAVES = tuple(field.name for field in dataclasses.fields(RunConfig) if field.name not in _BEGINS_WITH)


def make_run_config(
    agent: str = DEFAULT_AGENT, preset: str = DEFAULT_PRESET, fields: Mapping[str, Any] = {}
) -> RunConfig:
    """Make the config of a run.

    Args:
        agent: Name of the agent.
        preset: Name of the preset.
        fields: Leaves of the run, the agent and the loop by name; a union is given by the name of a kind or by a part.

    Raises:
        ValueError: if a name is unknown or belongs to an absent part, or if a value is out of range.
        TypeError: if a value does not have the type of its field.

    >>> config = make_run_config("c51", fields={"num_atoms": 21, "core": "lstm", "windows": "sequences", "seed": 3})
    >>> config.agent.head.num_atoms, config.agent.network.core.lstm_size, config.seed
    (21, 64, 3)
    """
    known = {*leaves(RunConfig()), *bringers(RunConfig)} - {"agent_name", "preset"}
    for name, value in fields.items():
        if name not in known:
            hint = other_name(name, value, {*known, "out", "quiet"}) or did_you_mean(name, sorted(known))
            raise ValueError(f"field: got {name!r}; it does not exist.{hint}")
    own = {**own_leaves(agent), **{name: value for name, value in fields.items() if name in RUN_LEAVES}}
    configs = make_configs(agent, preset, {name: value for name, value in fields.items() if name not in RUN_LEAVES})
    return RunConfig(configs.agent, configs.loop, agent, preset, **own)


def load_agent_module(name: str) -> None:
    """Import a module that registers agents; ``none`` imports nothing.

    Raises:
        ValueError: if the module does not exist, or needs a package that is not installed.

    >>> load_agent_module("none")
    """
    if name != "none":
        imported_module(name, name, "agent_module")


def without_workers(config: RunConfig) -> RunConfig:
    """Config of the same run with its environments in this process, which gives equal records and parameters.

    >>> without_workers(RunConfig(num_envs=2, workers=2)).workers
    0
    """
    if not config.workers:
        return config
    return dataclasses.replace(
        config,
        loop=dataclasses.replace(config.loop, loop="host"),  # the loop of a run with workers
        workers=0,
        worker_timeout=RunConfig.worker_timeout,
        on_env_failure="stop",
    )


def to_json(config: RunConfig) -> dict[str, Any]:
    """Convert a config to JSON types, nested like the config, with its format.

    >>> written = to_json(make_run_config("rainbow"))
    >>> written["format"], written["agent_name"], written["agent"]["head"]["kind"], written["loop"]["draw"]["n_steps"]
    (2, 'rainbow', 'categorical', 3)
    """
    return {"format": FORMAT, **parts.to_json(config)}


def from_json(fields: Mapping[str, Any]) -> RunConfig:
    """Read a config from JSON, the inverse of :func:`to_json`. A missing field has the value of the named agent.

    Raises:
        ValueError: if the format, an agent or a field is unknown (the message has the path and the closest name), or
            if a value is out of range.
        TypeError: if a value does not have the type of its field.

    >>> from_json(to_json(RunConfig(seed=3))) == RunConfig(seed=3)
    True
    """
    if fields.get("format") != FORMAT:
        raise ValueError(f"format: got {fields.get('format')!r}; expected {FORMAT}.")
    load_agent_module(str(fields.get("agent_module", "none")))
    agent = check_name(fields.get("agent_name", DEFAULT_AGENT), AGENTS, "agent_name")
    preset = check_name(fields.get("preset", DEFAULT_PRESET), PRESETS, "preset")
    configs = make_configs(agent, preset)
    # The default number of steps may be below the learning_starts of a preset.
    steps = max(RunConfig.steps, configs.loop.cadence.learning_starts + 1)
    default = RunConfig(configs.agent, configs.loop, agent, preset, steps=steps, **own_leaves(agent))
    return parts.from_json(default, {name: value for name, value in fields.items() if name != "format"})


def _check_environments(config: RunConfig) -> None:
    if config.workers > config.num_envs:
        raise ValueError(
            f"workers: got {config.workers} for {config.num_envs} environments; expected at most one for each. "
            f"Try --num-envs {config.workers}, or fewer workers."
        )
    if config.worker_timeout != RunConfig.worker_timeout and not config.workers:
        raise ValueError(
            f"worker_timeout: got {config.worker_timeout} and no workers; only a step of a worker process has a time "
            "limit. Try --workers 1."
        )
    if config.on_env_failure == "restart" and not config.workers:
        raise ValueError(
            "on_env_failure: got 'restart' and no workers; only environments in worker processes can be restarted. "
            "Try --workers 1."
        )


def _check_windows(config: RunConfig) -> None:
    """Check that a recurrent core is trained on sequences, and that the replay holds a window of each environment."""
    core, windows, capacity = config.agent.network.core, config.loop.draw.windows, config.loop.replay.replay_capacity
    needed = max(config.loop.draw.most_steps, 2)
    if isinstance(core, LSTM) and not isinstance(windows, Sequences):
        raise ValueError(
            "windows: got 'transitions', but core is 'lstm'; a recurrent core learns from sequences. Try --windows "
            "sequences, or --core none."
        )
    if isinstance(windows, Sequences):
        burn_in = core.burn_in if isinstance(core, LSTM) else 0
        if burn_in + windows.sequence_length > capacity:
            raise ValueError(
                f"sequence_length: got {windows.sequence_length}, and burn_in is {burn_in}; expected together at most "
                f"replay_capacity, {capacity}. Try --replay-capacity {burn_in + windows.sequence_length}, or shorter "
                "sequences."
            )
        # At least one sequence must begin among the stored steps, for any episode length.
        needed = max(needed, burn_in + windows.sequence_length, windows.sequence_period + 1)
    per_environment = -(-capacity // config.num_envs)
    if needed > per_environment:
        raise ValueError(
            f"replay_capacity: got {capacity} for {config.num_envs} environments, {per_environment} steps for each; "
            f"expected at least {needed} for each, the largest of 2, n_steps, and with sequences burn_in + "
            f"sequence_length and sequence_period + 1. Try --replay-capacity {needed * config.num_envs}, or fewer "
            "environments."
        )


def _check_resets(config: RunConfig) -> None:
    """Check that a schedule that restarts at resets has resets."""
    for name, schedule in config.loop.draw.schedules.items():
        if schedule.restarts and config.agent.resets is None:
            raise ValueError(
                f"{name}: got {schedule}, and resets is 'none', so it would never restart. Try --resets periodic, "
                f"or --{name.replace('_', '-')} {str(schedule).removesuffix('@resets')!r}."
            )
