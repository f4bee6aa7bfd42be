"""Experience kept, and what is drawn from it.

Steps lie in lanes, one lane per environment, each observation once; transitions over one or more steps are
*drawn* from them, so that ``n`` and the discount may change during a run. ``host`` keeps them in NumPy arrays;
``stacking`` keeps the frames that an agent acts on as the replay draws them.
"""

from . import stacking
from .host import (
    HostReplay,
    add,
    check_valid,
    end_episode,
    init,
    nbytes,
    sample,
    sample_sequences,
    size,
    update_priorities,
)
from .types import EnvironmentSpec, Sample, Sequence, Step, TimeStep, Transition

__all__ = [
    "EnvironmentSpec",
    "HostReplay",
    "Sample",
    "Sequence",
    "Step",
    "TimeStep",
    "Transition",
    "add",
    "check_valid",
    "end_episode",
    "init",
    "nbytes",
    "sample",
    "sample_sequences",
    "size",
    "stacking",
    "update_priorities",
]
