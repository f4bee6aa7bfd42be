"""Terms of an agent's loss; each is a function of a key and of :class:`polyak.agents.Views`."""

from .value import make_value_term

__all__ = ["make_value_term"]
