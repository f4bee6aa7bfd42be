"""Source of a run's environments, and the loop that trains on them."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym

from ...agents.loop_config import check_on_device
from ..environments.functional.names import NAMES, functional_environment
from ..environments.functional.types import FunctionalEnvironment
from ..environments.make import Source, recipe
from .config import RunConfig

Loop = Literal["host", "device"]


def source_of(config: RunConfig, given: Mapping[str, Any] = {}) -> tuple[Source, Loop]:
    """Source of the environments of a run, and the loop that ``loop`` stands for.

    With ``host``, the id of a Gymnasium environment is that environment. With ``device``, and with ``auto`` if the
    device loop can run the config, it is its functional counterpart.

    Args:
        config: Config of the run.
        given: Objects passed from Python, by their text in the config.

    Raises:
        ValueError: if the device loop cannot run the config, a functional environment cannot have a setting of the
            config, or there is no such environment.
        TypeError: if an object is not callable.
        EnvironmentFailure: if a maker raises.

    >>> from polyak.experiments.runs.config import make_run_config
    >>> [source_of(make_run_config(fields={"loop": loop}))[1] for loop in ("host", "device", "auto")]
    ['host', 'device', 'device']
    >>> source_of(make_run_config(fields={"loop": "auto", "normalize_rewards": True}))[1]
    'host'
    """
    wanted = config.loop.loop
    is_registered = config.env in gym.registry
    if wanted == "host" and is_registered:
        return _gymnasium(config, given), "host"
    try:
        functional = functional_environment(config.env, json.loads(config.env_kwargs), given)
    except ValueError:
        if wanted == "auto" and is_registered:  # for example a render_mode, which only Gymnasium's has
            return _gymnasium(config, given), "host"
        raise
    if functional is None:
        if wanted == "device":
            known = ", ".join(NAMES)
            raise ValueError(
                f"loop: got 'device', but env {config.env!r} is not functional; expected {known}, gymnax/NAME, or "
                "MODULE:NAME of a FunctionalEnvironment or of its maker. Try --loop host."
            )
        return _gymnasium(config, given), "host"
    obstacle = _obstacle(config, functional)
    if obstacle is None and wanted == "auto":
        try:
            check_on_device(config.loop.normalization)
        except ValueError:
            wanted = "host"
    if obstacle is None:
        return functional, "host" if wanted == "host" else "device"
    if wanted == "auto" and is_registered:
        return _gymnasium(config, given), "host"
    raise ValueError(obstacle)


def _gymnasium(config: RunConfig, given: Mapping[str, Any]) -> Source:
    return recipe(config.env, config.env_kwargs, config.wrappers, given)


def _obstacle(config: RunConfig, functional: FunctionalEnvironment) -> str | None:
    """Message about a setting that a functional environment cannot have; None without one."""
    name = functional.name
    # Only a Gymnasium environment has another loop to offer.
    host = " Try --loop host." if config.env in gym.registry else ""
    if config.wrappers:
        return (
            f"wrappers: got {', '.join(config.wrappers)} for the functional environment {name}; they wrap Gymnasium's "
            f"environments.{host or ' Leave them out.'}"
        )
    if config.workers:
        return (
            f"workers: got {config.workers} for the functional environment {name}, which is compiled into this "
            f"process; expected 0.{host or ' Try --workers 0.'}"
        )
    if config.replay_storage == "mmap" and config.loop.loop != "host":
        return f"replay_storage: got 'mmap' with the device loop, whose replay is in memory; expected 'memory'.{host}"
    if config.action_mask and functional.action_mask is None:
        return (
            f"action_mask: got True, but the functional environment {name} has no action masks."
            f"{host or ' Leave it out: masks are used where an environment has them.'}"
        )
    return None
