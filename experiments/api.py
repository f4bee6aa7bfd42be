"""Runs from Python: ``polyak.train``, ``polyak.resume``, ``polyak.load`` and ``polyak.evaluate``."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..agents import AgentConfig
from ..replay.types import TimeStep
from ..updates import Variables
from . import runs
from .config import AGENTS, RunConfig, agent_name, from_json, known, without_workers
from .files import load_variables, read_json
from .progress import Progress
from .records import read_jsonl

Folder = str | pathlib.Path


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: where it stands.
        config: what it was made with.
        metrics: name to array over the records, float64 with NaN where nothing was measured; ``returns``, ``lengths``
            and ``ended_at`` are over the training episodes.
        variables: the parameters (and module state) that are evaluated.
        evaluation: mean, standard error and returns of the greedy episodes at the end.
        act: the greedy action for one observation (shape and dtype of the environment's; a ``Discrete`` observation as
            its one-hot vector), for agents without memory.
    """

    folder: pathlib.Path
    config: RunConfig
    metrics: dict[str, np.ndarray]
    variables: Variables
    evaluation: dict[str, Any]
    act: Callable[[Any], int] = dataclasses.field(repr=False)


def train(
    agent: str = "dqn", *, config: RunConfig | None = None, out: Folder | None = None, quiet: bool = True, **fields: Any
) -> Run:
    """Trains an agent, as ``polyak train`` does.

    Args:
        agent: the agent's name.
        config: a whole config, instead of an agent's name and fields.
        out: the run's folder, new or empty; by default one under ``runs/``.
        quiet: print no progress.
        **fields: fields of the run (``env``, ``steps``, ``seed``, ...) and of the agent (``target``, ``learning_rate``,
            ...), by name.

    Raises:
        ValueError, TypeError: a field that does not exist (the message names the closest) or is out of range, before
            the first environment step.
        KeyboardInterrupt: it was interrupted, and saved; go on with :func:`resume`.

    >>> import tempfile
    >>> fields = {"steps": 300, "learning_starts": 100, "hidden_sizes": (8,), "evaluation_episodes": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(env="CartPole-v1", target="incremental:0.01", out=folder, **fields)
    >>> run.config.agent.target, run.metrics["step"].tolist(), run.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
    ('incremental:0.01', [300.0], True)
    """
    if config is None:
        config = _config(AGENTS[known(agent, AGENTS, "agent")](), fields)
    elif fields:
        raise ValueError(
            f"config: got a whole config and the fields {', '.join(fields)} as well; give one or the other."
        )
    folder = pathlib.Path(out) if out is not None else runs.default_folder(config)
    with Progress(config, quiet=quiet) as progress:
        return _finished(runs.train(config, folder, progress.show, progress.say, progress.begin), folder)


def resume(folder: Folder, *, quiet: bool = True) -> Run:
    """Continues a run that was stopped or killed, as if it had never been.

    Raises:
        ValueError: no run stands in ``folder``, or it cannot be continued.
        KeyboardInterrupt: it was interrupted again, and saved.
    """
    folder = pathlib.Path(folder)
    with Progress(runs.read_config(folder), quiet=quiet) as progress:
        return _finished(runs.resume(folder, progress.show, progress.say, progress.begin), folder)


def load(folder: Folder) -> Run:
    """Reads a finished run.

    Raises:
        ValueError: no finished run stands in ``folder``, or a file of it does not fit.
    """
    folder = pathlib.Path(folder)
    config = runs.read_config(folder)
    if not (folder / "evaluation.json").is_file():
        raise ValueError(f"{folder}: the run has not ended. Continue it with polyak.resume({str(folder)!r}).")
    parts = runs.build(without_workers(config))
    parts.environment.close()
    state = parts.agent.init(jax.random.key(config.seed))
    variables = load_variables(folder / "parameters.npz", Variables(state.params, state.state))
    state = state._replace(params=variables.params, state=variables.state)
    spec = parts.environment.spec.observation

    @jax.jit
    def greedy(observation: Any) -> jax.Array:
        timestep = TimeStep(observation[None], jnp.zeros(1), jnp.ones(1, bool))
        memory = parts.agent.initial_memory(jax.random.key(0), 1)
        return parts.agent.act(jax.random.key(0), state, memory, timestep).action[0]

    def act(observation: Any) -> int:
        found = np.asarray(observation, spec.dtype)
        if found.shape != spec.shape:
            raise ValueError(f"observation: got shape {found.shape}; expected {spec.shape}, one observation.")
        return int(greedy(found))

    metrics = _columns(list(read_jsonl(folder / "metrics.jsonl")))
    return Run(folder, config, metrics, variables, read_json(folder / "evaluation.json"), act)


def evaluate(run: Run | Folder, *, episodes: int = 20, seed: int | None = None, epsilon: float = 0.0) -> dict[str, Any]:
    """Plays whole episodes with a finished run's parameters, in environments of their own.

    Args:
        run: a run or its folder.
        episodes: how many.
        seed: of the environments; by default the one that the run's own evaluation had.
        epsilon: the probability of a random action.

    Returns:
        ``mean``, ``standard_error``, ``episodes``, ``seed``, ``epsilon`` and ``returns``.

    Raises:
        ValueError: no finished run, fewer than one episode, or an epsilon outside [0, 1].
    """
    return runs.evaluate_run(run.folder if isinstance(run, Run) else pathlib.Path(run), episodes, seed, epsilon)


def _config(agent: AgentConfig, fields: dict[str, Any]) -> RunConfig:
    of_the_agent = {field.name for field in dataclasses.fields(agent)}
    of_the_run = {field.name for field in dataclasses.fields(RunConfig)} - {"agent"}
    for name in fields:
        known(name, sorted(of_the_run | of_the_agent), "field")
    described = {"name": agent_name(agent), **{k: v for k, v in fields.items() if k in of_the_agent}}
    return from_json({**{k: v for k, v in fields.items() if k in of_the_run}, "agent": described})


def _finished(result: dict[str, Any] | None, folder: pathlib.Path) -> Run:
    if result is None:
        raise KeyboardInterrupt(f"the run was interrupted and saved; continue it with polyak.resume({str(folder)!r})")
    return load(folder)


def _columns(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if any(isinstance(value, list) for value in values):
            columns[name] = np.array([item for value in values for item in value or []], np.float64)
        else:
            columns[name] = np.array([np.nan if value is None else value for value in values], np.float64)
    return columns
