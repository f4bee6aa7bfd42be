"""Experience replay: steps are stored once, and transitions or sequences are drawn from them.

Steps lie in lanes, one lane per environment, each observation once; transitions over one or more steps are computed
when they are *drawn*, so that ``n`` and the discount may change during a run. A ``Replay`` is a value of
functions; ``host.make`` makes one over NumPy arrays. ``stacking`` stacks frames for acting as a replay does for draws.
"""

from . import host, stacking
from ._rows import HostReplay
from ._validity import check_valid
from .types import DrawNumbers, EnvironmentSpec, Nbytes, Replay, Sample, Sequence, Step, TimeStep, Transition

__all__ = [
    "DrawNumbers",
    "EnvironmentSpec",
    "HostReplay",
    "Nbytes",
    "Replay",
    "Sample",
    "Sequence",
    "Step",
    "TimeStep",
    "Transition",
    "check_valid",
    "host",
    "stacking",
]
