"""Support of a distribution of returns, derived from the rewards of the first steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import networks
from ..updates import LearnerState
from .config import GIVE_SUPPORT, AgentConfig, Categorical, HLGauss, check_bounded

_TAIL = 0.05  # share of the rewards beyond which a reward does not repeat from step to step
_MARGIN = 0.05  # of the support, on either side


def derive_support(rewards: npt.NDArray[np.floating], discount: float, *, margin: bool = False) -> tuple[float, float]:
    """Lowest and highest return that rewards allow.

    A reward that 5 % of the steps reach may come at every step, and adds up to ``reward / (1 - discount)``; a larger
    one that is rare counts once. The support contains 0.

    Args:
        rewards: ``[R]``, rewards of single steps.
        discount: Discount of one step, in [0, 1).
        margin: Whether to extend the support by 5 % on either side, because the mean of a histogram that is learnt
            from a Gaussian is biased inwards near the ends of the support.

    Raises:
        ValueError: if the discount is not in [0, 1), or every reward is 0.

    >>> derive_support(np.array([1.0, 1.0, 1.0]), discount=0.99)
    (0.0, 100.0)
    >>> derive_support(np.array([-1.0, -1.0, -1.0, 0.0]), discount=0.99, margin=True)
    (-105.0, 5.0)
    """
    check_bounded(discount)
    low, high = np.quantile(rewards, [_TAIL, 1 - _TAIL]) / (1 - discount)
    v_min = min(float(low), float(np.min(rewards)), 0.0)
    v_max = max(float(high), float(np.max(rewards)), 0.0)
    if v_min == v_max:
        raise ValueError(f"v_min: got None, and all of the first {len(rewards)} rewards are 0. {GIVE_SUPPORT}")
    extra = _MARGIN * (v_max - v_min) if margin else 0.0
    return round(v_min - extra, 4), round(v_max + extra, 4)


def make_calibration(config: AgentConfig) -> Callable[[LearnerState, Any, float], LearnerState] | None:
    """Function that derives the support of the atoms from rewards; None where the config gives it or there are none.

    >>> make_calibration(AgentConfig()) is None
    True
    """
    head = config.head
    if not isinstance(head, Categorical | HLGauss) or head.v_min is not None:
        return None

    def calibrate(state: LearnerState, rewards: Any, discount: float) -> LearnerState:
        found = networks.support(state.state)
        if found is None or float(np.ptp(np.asarray(found))) > 0:  # it came with the parameters
            return state
        v_min, v_max = derive_support(np.asarray(rewards), discount, margin=isinstance(head, HLGauss))

        def with_support(tree: Any) -> Any:
            return tree if networks.support(tree) is None else networks.set_support(tree, v_min, v_max)

        targets = {name: slow._replace(state=with_support(slow.state)) for name, slow in state.targets.items()}
        return state._replace(state=with_support(state.state), targets=targets)

    return calibrate
