"""Terms of an agent's loss: functions of a key and of :class:`polyak.agents.Views`."""

from .self_prediction import make_self_prediction_term
from .value import make_value_term

__all__ = ["make_self_prediction_term", "make_value_term"]
