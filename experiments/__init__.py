"""polyak.experiments: environments, loops, runs and the command line; the only place where all parts meet."""

from .carry import Carry, initial_carry
from .config import RunConfig
from .environment import Environments, EnvironmentStep, VectorEnvironments, adapt, make
from .evaluation import evaluate
from .host_loop import host_loop
from .lanes import EnvironmentFailure
from .schedules import total_learner_steps
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
