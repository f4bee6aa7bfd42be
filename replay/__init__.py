"""Experience replay: stores each step once and samples transitions or sequences.

Steps are stored in lanes, one lane per environment, and each observation is stored once. n-step transitions are
computed when they are *sampled*, so ``n`` and the discount may change during a run. A ``Replay`` is a NamedTuple of
functions; ``host.make`` makes one over NumPy arrays, and ``device.make`` makes one over JAX arrays, whose functions can
be called inside a compiled program. ``stacking`` stacks frames for acting as the replay does.
"""

from . import device, host, stacking
from ._rows import ReplayState
from ._validity import check_valid
from .types import DrawNumbers, EnvironmentSpec, Nbytes, Replay, Sample, Sequence, Step, TimeStep, Transition

__all__ = [
    "DrawNumbers",
    "EnvironmentSpec",
    "Nbytes",
    "Replay",
    "ReplayState",
    "Sample",
    "Sequence",
    "Step",
    "TimeStep",
    "Transition",
    "check_valid",
    "device",
    "host",
    "stacking",
]
