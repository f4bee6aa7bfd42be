"""polyak: agents that bootstrap from a slow copy of themselves, in JAX and Haiku.

Eleven functions and five subpackages, imported at their first use:

* ``polyak.train``, ``polyak.resume``, ``polyak.load``, ``polyak.evaluate``, ``polyak.compare``: runs from Python.
* ``polyak.sweep``: grids of settings and seeds in one compiled program.
* ``polyak.pretrain``, ``polyak.load_pretrained``: encoders pretrained on images.
* ``polyak.register_agent``: agents of your own, by name.
* ``polyak.export``, ``polyak.load_exported``: trained networks outside of polyak.
* ``polyak.updates``: optimizer steps and target networks; imports none of the other subpackages.
* ``polyak.networks``: Haiku torsos, heads and value networks.
* ``polyak.replay``: replay buffers and their samples.
* ``polyak.agents``: acting and learning.
* ``polyak.experiments``: environments, loops, runs and the command line.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .experiments.api import (
        compare,
        evaluate,
        export,
        load,
        load_exported,
        load_pretrained,
        pretrain,
        register_agent,
        resume,
        sweep,
        train,
    )

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "agents",
    "compare",
    "evaluate",
    "experiments",
    "export",
    "load",
    "load_exported",
    "load_pretrained",
    "networks",
    "pretrain",
    "register_agent",
    "replay",
    "resume",
    "sweep",
    "train",
    "updates",
]
_FUNCTIONS = (
    "compare",
    "evaluate",
    "export",
    "load",
    "load_exported",
    "load_pretrained",
    "pretrain",
    "register_agent",
    "resume",
    "sweep",
    "train",
)


def __getattr__(name: str) -> Any:
    """Import a subpackage or function at its first use, so that ``import polyak`` alone is fast."""
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(".experiments.api", __name__), name)
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'polyak' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Public names, those that are not imported yet included."""
    return list(__all__)
