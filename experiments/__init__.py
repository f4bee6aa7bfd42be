"""polyak.experiments: environments, loops, runs and the command line; the only place where all parts meet.

Names are imported when they are first used: a worker process imports ``environments.worker`` and with it this package,
but needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .environments.check import check
    from .environments.findings import Finding
    from .environments.lanes import Environments
    from .environments.make import adapt, make
    from .environments.types import Environment, EnvironmentFailure, EnvironmentStep
    from .environments.vector import VectorEnvironments
    from .loops.carry import Carry, initial_carry, make_replay
    from .loops.evaluation import evaluate
    from .loops.host import host_loop
    from .loops.schedules import total_learner_steps
    from .runs.config import RunConfig

__all__ = [
    "Carry",
    "Environment",
    "EnvironmentFailure",
    "EnvironmentStep",
    "Environments",
    "Finding",
    "RunConfig",
    "VectorEnvironments",
    "adapt",
    "check",
    "evaluate",
    "host_loop",
    "initial_carry",
    "make",
    "make_replay",
    "total_learner_steps",
]

_MODULES = {
    "Carry": "loops.carry",
    "Environment": "environments.types",
    "EnvironmentFailure": "environments.types",
    "EnvironmentStep": "environments.types",
    "Environments": "environments.lanes",
    "Finding": "environments.findings",
    "RunConfig": "runs.config",
    "VectorEnvironments": "environments.vector",
    "adapt": "environments.make",
    "check": "environments.check",
    "evaluate": "loops.evaluation",
    "host_loop": "loops.host",
    "initial_carry": "loops.carry",
    "make": "environments.make",
    "make_replay": "loops.carry",
    "total_learner_steps": "loops.schedules",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a public name at its first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """The public names, those that are not imported yet included."""
    return list(__all__)
