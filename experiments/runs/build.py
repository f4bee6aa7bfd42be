"""Agent, environments and replay of a run, made from its config."""

import dataclasses
import importlib.metadata
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from ... import __version__
from ...agents import Agent
from ...agents.types import NO_NUMBERS, AgentNumbers
from ...networks import Lowering
from ...replay import Replay
from ...replay.types import EnvironmentSpec
from ...updates import rules_by_part
from ..environments.functional.lanes import FunctionalEnvironments
from ..environments.lanes import Environments
from ..environments.make import Source, make
from ..loops.carry import make_replay
from ..loops.learning import check_periods
from ..loops.observations import observation_pipeline
from ..loops.schedules import batches_per_dispatch, total_learner_steps
from .config import RunConfig, to_json
from .own_parts import own_maker, own_network, own_terms
from .source import Loop, source_of

STORAGE = "replay.bin"  # in the folder of a run: observations of a memory-mapped replay


@dataclasses.dataclass(frozen=True)
class Parts:
    """Agent, environments and replay of a run, made from its config.

    Attributes:
        config: Config of the run.
        source: Recipe of one environment, or a functional environment, from which evaluation environments are made too.
        loop: Loop that trains, host or device.
        agent: Agent.
        environment: Training environments.
        replay: Replay.
    """

    config: RunConfig
    source: Source
    loop: Loop
    agent: Agent
    environment: Environments | FunctionalEnvironments
    replay: Replay


def build(config: RunConfig, folder: pathlib.Path | None = None, given: Mapping[str, Any] = {}) -> Parts:
    """Make the parts of a run without allocating or writing anything.

    Args:
        config: Config of the run.
        folder: Folder of the run, which contains the file of a memory-mapped replay; None for evaluation only.
        given: Objects passed from Python, by their text in the config.

    Raises:
        ValueError, TypeError: if a number of the config is incompatible with the environment; no step was taken.
        EnvironmentFailure: if the environment raises during its construction.
    """
    source, loop = source_of(config, given)
    environment = _environments(config, source)
    storage = folder / STORAGE if folder is not None and config.replay_storage == "mmap" else None
    try:
        agent = make_run_agent(config, environment.spec, loop, given)
        on_device = loop == "device"
        replay = make_replay(
            agent, environment.spec, config.loop, config.num_envs, storage=storage, on_device=on_device
        )
        return Parts(config, source, loop, agent, environment, replay)
    except BaseException:
        environment.close()
        raise


def _environments(config: RunConfig, source: Source) -> Environments | FunctionalEnvironments:
    return make(
        source,
        config.num_envs,
        config.seed,
        action_mask=config.action_mask,
        workers=config.workers,
        timeout=config.worker_timeout,
        on_failure=config.on_env_failure,
    )


def make_run_agent(
    config: RunConfig,
    spec: EnvironmentSpec,
    loop: Loop,
    given: Mapping[str, Any] = {},
    numbers: AgentNumbers = NO_NUMBERS,
) -> Agent:
    """Make the agent of a run.

    Args:
        config: Config of the run.
        spec: Spec of the environments, with observations of a single frame.
        loop: Loop that trains.
        given: Objects passed from Python, by their text in the config.
        numbers: Numbers in place of those of the config, which may be traced; not for a maker of your own.

    Raises:
        ValueError, TypeError: if a part of the config does not fit the environment, or the run would not learn.
    """
    updates_in_all = total_learner_steps(config.loop, config.steps, config.num_envs)
    if updates_in_all < 1:
        cadence = config.loop.cadence
        raise ValueError(
            f"train_every: got {cadence.train_every}, and no multiple of it lies between learning_starts "
            f"{cadence.learning_starts} and steps {config.steps}, so the run would not learn. Lower one of them."
        )
    # XLA's CPU backend is slow for convolutions inside scan, but not for patches and a matrix product.
    scanned = loop == "device" or batches_per_dispatch(config.loop, config.num_envs) > 1
    lowering: Lowering = "patches" if scanned and jax.default_backend() == "cpu" else "convolution"
    seen = observation_pipeline(config.loop, spec).spec
    # A user-defined network chooses its own lowerings.
    network = own_network(config, seen, given)
    own = {"lowering": lowering} if network is None else {"network": network}
    own |= {"terms": terms} if (terms := own_terms(config, given)) else {}
    own |= {} if numbers is NO_NUMBERS else {"numbers": numbers}
    agent = own_maker(config, given)(
        config.agent,
        seen,
        total_learner_steps=updates_in_all,
        environment_steps_per_learner_step=config.loop.environment_steps_per_learner_step,
        **own,
    )
    if not isinstance(agent, Agent):
        raise TypeError(
            f"agent: {config.maker} made {agent!r} ({type(agent).__name__}); expected a polyak.agents.Agent."
        )
    check_periods(agent, batches_per_dispatch(config.loop, config.num_envs))
    return agent


def describe_targets(parts: Parts) -> dict[str, Any]:
    """Describe the rule of each target and target part: its text, and its period in learner and environment steps."""
    unit = parts.config.loop.environment_steps_per_learner_step
    described = {}
    for name, rule in rules_by_part({name: named.rule for name, named in parts.agent.targets.items()}).items():
        moves = rule.period > 0 and rule.step_size > 0
        described[name] = {
            "rule": str(rule),
            "step_size": float(rule.step_size),
            "period_learner_steps": int(rule.period) if moves else None,
            "period_environment_steps": float(rule.period * unit) if moves else None,
        }
    return described


def identity(config: RunConfig, run_id: str) -> dict[str, Any]:
    """Identity of a run, stored in its checkpoints: its id, its config, and whether JAX computes in 64 bits."""
    return {"id": run_id, "config": to_json(config), "jax_enable_x64": bool(jax.config.read("jax_enable_x64"))}


def resolved(parts: Parts, run_id: str) -> dict[str, Any]:
    """Content of ``config.json``: id and config of the run, derived values, and versions of the libraries."""
    config, spec = parts.config, parts.environment.spec
    libraries = ("jax", "jaxlib", "dm-haiku", "optax", "rlax", "chex", "gymnasium", "numpy")
    return {
        "id": run_id,
        "config": to_json(config),
        "resolved": {
            "targets": describe_targets(parts),
            "loop": parts.loop,
            "learner_steps": total_learner_steps(config.loop, config.steps, config.num_envs),
            "observation": {"shape": list(spec.observation.shape), "dtype": str(spec.observation.dtype)},
            "num_actions": spec.num_actions,
            "action_mask": spec.action_mask,
            "replay_bytes": parts.replay.nbytes.memory,
            "replay_file_bytes": parts.replay.nbytes.file,
        },
        "versions": {
            "polyak": __version__,
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in libraries},
        },
    }
