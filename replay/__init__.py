"""Experience kept, and what is drawn from it.

Steps lie in lanes, one lane per environment, each observation once; transitions over one or more steps are
*drawn* from them, so that ``n`` and the discount may change during a run. ``host`` keeps them in NumPy arrays;
``stacking`` keeps the frames that an agent acts on as the replay draws them.
"""

from . import stacking
from .host import HostReplay, add, check_valid, end_episode, init, nbytes, sample, size, update_priorities
from .types import EnvironmentSpec, Sample, Step, TimeStep, Transition

__all__ = [
    "EnvironmentSpec",
    "HostReplay",
    "Sample",
    "Step",
    "TimeStep",
    "Transition",
    "add",
    "check_valid",
    "end_episode",
    "init",
    "nbytes",
    "sample",
    "size",
    "stacking",
    "update_priorities",
]
