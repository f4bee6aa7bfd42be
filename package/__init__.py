"""polyak: agents that bootstrap from a slow copy of themselves, in JAX and Haiku.

The parts are modules of their own, imported when they are first used:

* ``polyak.updates``: what becomes of parameters; the target core, which stands alone.
* ``polyak.networks``: Haiku torsos and heads.
* ``polyak.replay``: experience kept, and what is drawn from it.
* ``polyak.agents``: how to act and how to learn.
* ``polyak.experiments``: environments, loops, runs and the command line.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = ["__version__", "agents", "experiments", "networks", "replay", "updates"]


def __getattr__(name: str) -> ModuleType:
    """Imports a part of polyak at its first use, so that ``import polyak`` alone costs nothing."""
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'polyak' has no attribute {name!r}; it has {', '.join(__all__)}")
