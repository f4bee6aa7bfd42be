"""polyak.experiments: environments, loops, runs and the command line; the only place where all parts meet."""

from .config import RunConfig
from .environment import Environments, EnvironmentStep, VectorEnvironments, adapt, make
from .evaluation import evaluate
from .host_loop import Carry, host_loop, initial_carry, total_learner_steps
from .lanes import EnvironmentFailure
from .workers import WorkerEnvironments

__all__ = [
    "Carry",
    "EnvironmentFailure",
    "EnvironmentStep",
    "Environments",
    "RunConfig",
    "VectorEnvironments",
    "WorkerEnvironments",
    "adapt",
    "evaluate",
    "host_loop",
    "initial_carry",
    "make",
    "total_learner_steps",
]
