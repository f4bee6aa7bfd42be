"""Support of a return distribution, derived from the rewards of the first steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import networks
from ..updates import LearnerState
from .config import AgentConfig
from .head_parts import GIVE_SUPPORT, Categorical, HLGauss, check_bounded

_TAIL = 0.05  # smallest share of the steps from which a reward is assumed to repeat at every step
_MARGIN = 0.05  # extension at each end, as a share of the support


def derive_support(rewards: npt.NDArray[np.floating], discount: float, *, margin: bool = False) -> tuple[float, float]:
    """Derive the lowest and highest return that rewards allow.

    A reward that 5 % of the steps reach may occur at every step, and adds up to ``reward / (1 - discount)``. A larger,
    rarer reward counts once. The support contains 0.

    Args:
        rewards: ``[R]``, rewards of single steps.
        discount: Discount of one step, in [0, 1).
        margin: Whether to extend the support by 5 % at each end, because the mean of a histogram trained on a Gaussian
            is biased inwards near the ends of the support.

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
    """Make the function that derives the support from rewards; None if the config gives it or the head has none.

    >>> make_calibration(AgentConfig()) is None
    True
    """
    head = config.head
    if not isinstance(head, Categorical | HLGauss) or head.v_min is not None:
        return None

    def calibrate(state: LearnerState, rewards: Any, discount: float) -> LearnerState:
        found = networks.support(state.state)
        if found is None or float(np.ptp(np.asarray(found))) > 0:  # loaded with the parameters
            return state
        v_min, v_max = derive_support(np.asarray(rewards), discount, margin=isinstance(head, HLGauss))

        def with_support(tree: Any) -> Any:
            return tree if networks.support(tree) is None else networks.set_support(tree, v_min, v_max)

        targets = {name: slow._replace(state=with_support(slow.state)) for name, slow in state.targets.items()}
        return state._replace(state=with_support(state.state), targets=targets)

    return calibrate
