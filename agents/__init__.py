"""Agents: their configs, the table of agents, and the functions that act and learn.

Configs and the table import nothing heavy. Names that need JAX are imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .config import AgentConfig
from .loop_config import LoopConfig
from .presets import AGENTS, Configs, make_configs
from .schedules import Schedule
from .settings import PRESETS

if TYPE_CHECKING:
    from .agent import make_agent
    from .exploration import epsilon_greedy
    from .optimizers import make_optimizer
    from .types import ActOutput, Agent, Term, TermOutput, Views, evaluation_state

__all__ = [
    "AGENTS",
    "PRESETS",
    "ActOutput",
    "Agent",
    "AgentConfig",
    "Configs",
    "LoopConfig",
    "Schedule",
    "Term",
    "TermOutput",
    "Views",
    "epsilon_greedy",
    "evaluation_state",
    "make_agent",
    "make_configs",
    "make_optimizer",
]

_MODULES = {
    "ActOutput": "types",
    "Agent": "types",
    "Term": "types",
    "TermOutput": "types",
    "Views": "types",
    "epsilon_greedy": "exploration",
    "evaluation_state": "types",
    "make_agent": "agent",
    "make_optimizer": "optimizers",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on first use."""
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Return the public names, including names that are not imported yet."""
    return list(__all__)
