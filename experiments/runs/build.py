"""What a config builds: the agent and the environments of a run, and what follows from it."""

import dataclasses
import functools
import importlib.metadata
import pathlib
import platform
from typing import Any

import jax

from ... import __version__
from ...agents import Agent, dqn
from ...networks import Lowering
from ...replay import host
from ...replay.types import EnvironmentSpec
from ...updates import TargetRule
from ..environments.local import Environments
from ..environments.make import make
from ..environments.workers import WorkerEnvironments
from ..loops.carry import mask_spec, replay_options, specs
from ..loops.schedules import batches_per_dispatch, total_learner_steps
from .config import RunConfig, to_json


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a config builds: agent and environments, ready for the loop."""

    config: RunConfig
    agent: Agent
    environment: Environments | WorkerEnvironments


def build(config: RunConfig) -> Parts:
    """Makes the agent and the environments of a run.

    Raises:
        ValueError, TypeError: anything in the config that cannot be; no environment has been stepped.
        EnvironmentFailure: the environment raises while it is made.
    """
    environment = _environments(config)
    try:
        return Parts(config, _agent(config, environment.spec), environment)
    except BaseException:
        environment.close()
        raise


def _environments(config: RunConfig) -> Environments | WorkerEnvironments:
    if not config.workers:
        return make(config.env, config.num_envs, config.seed, action_mask=config.action_mask)
    return WorkerEnvironments(
        config.env,
        config.num_envs,
        config.seed,
        workers=config.workers,
        timeout=config.worker_timeout,
        on_failure=config.on_env_failure,
        action_mask=config.action_mask,
    )


def _agent(config: RunConfig, spec: EnvironmentSpec) -> Agent:
    updates_in_all = total_learner_steps(config.agent, config.steps, config.num_envs)
    if updates_in_all < 1:
        raise ValueError(
            f"train_every: got {config.agent.train_every}, and no multiple of it lies between learning_starts "
            f"{config.agent.learning_starts} and steps {config.steps}, so nothing would be learnt. Lower either."
        )
    # Convolutions inside scan collapse on XLA's CPU backend; patches and a matrix product do not.
    scanned = batches_per_dispatch(config.agent, config.num_envs) > 1
    lowering: Lowering = "patches" if scanned and jax.default_backend() == "cpu" else "convolution"
    return dqn(config.agent, spec, total_learner_steps=updates_in_all, lowering=lowering)


def describe_targets(parts: Parts) -> dict[str, Any]:
    """Each target's rule as text, and its period in learner and in environment steps."""
    unit = parts.config.agent.environment_steps_per_learner_step
    described = {}
    for name, named in parts.agent.targets.items():
        rule = named.rule
        if not isinstance(rule, TargetRule):
            continue
        moves = rule.period > 0 and rule.step_size > 0
        described[name] = {
            "rule": str(rule),
            "step_size": float(rule.step_size),
            "period_learner_steps": int(rule.period) if moves else None,
            "period_environment_steps": float(rule.period * unit) if moves else None,
        }
    return described


def resolved(parts: Parts) -> dict[str, Any]:
    """What ``config.json`` holds: the config, what follows from it, and the versions it ran on."""
    config, spec = parts.config, parts.environment.spec
    libraries = ("jax", "jaxlib", "dm-haiku", "optax", "rlax", "chex", "gymnasium", "numpy")
    _, extras = specs(parts.agent, spec, config.agent, config.num_envs)
    bytes_of = functools.partial(
        host.nbytes,
        spec.observation,
        extras,
        mask_spec(spec),
        num_envs=config.num_envs,
        capacity=config.agent.replay_capacity,
        **replay_options(config.agent),
    )
    in_memory = bytes_of(storage=pathlib.Path("replay.bin") if config.replay_storage == "mmap" else None)
    return {
        "config": to_json(config),
        "resolved": {
            "targets": describe_targets(parts),
            "learner_steps": total_learner_steps(config.agent, config.steps, config.num_envs),
            "observation": {"shape": list(spec.observation.shape), "dtype": str(spec.observation.dtype)},
            "num_actions": spec.num_actions,
            "action_mask": spec.action_mask,
            "replay_bytes": in_memory,
            "replay_file_bytes": bytes_of() - in_memory,
        },
        "versions": {
            "polyak": __version__,
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in libraries},
        },
    }
