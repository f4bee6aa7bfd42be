"""Schedules: numbers that change over a run, each with a string form. The module imports nothing heavy.

=============================  =====================================================================
text                           value at a step
=============================  =====================================================================
``0.99``                       constant
``linear(1,0.05,25%)``         linear over the first 25 % of the run, then constant
``linear(5,1,10000)``          linear over the first 10 000 steps, then constant
``exponential(10,3,10000)``    geometric interpolation: the ratio of successive values is constant
``horizon(0.97,0.997,10000)``  geometric interpolation of 1 / (1 - value), the horizon of a discount
``cosine(0.001,0,100%)``       half a period of a cosine
``…@resets``                   restarts at each reset of the agent, and counts learner steps
=============================  =====================================================================

Steps are environment steps. The steps of a learning rate, and of a schedule that restarts, are learner steps.
"""

import dataclasses
import decimal
import math
import numbers
import re
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["constant", "linear", "exponential", "horizon", "cosine"]
_KINDS = ("linear", "exponential", "horizon", "cosine")
_FORMS = f"a number, {', '.join(f'{kind}(FROM,TO,OVER)' for kind in _KINDS)}, OVER as 10000 or 25%"
_RESTARTS = "@resets"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Number as a function of the step.

    Attributes:
        initial: Value at step 0.
        final: Value after the change; None for a constant.
        over: Length of the change: a number of steps, or a fraction of the run if ``relative``.
        relative: Whether ``over`` is a fraction of the run.
        kind: Shape of the change.
        restarts: Whether the schedule restarts at each reset of the agent.

    >>> str(Schedule(0.99)), str(Schedule.of("linear(1, 0.05, 25%)"))
    ('0.99', 'linear(1,0.05,25%)')
    """

    initial: float
    final: float | None = None
    over: float = 0.0
    relative: bool = False
    kind: Kind = "constant"
    restarts: bool = False

    @classmethod
    def of(cls, value: Any, name: str = "schedule") -> "Schedule":
        """Read a schedule from a number, a string or a schedule.

        Args:
            value: Number, string or schedule.
            name: Name of the field, for error messages.

        Raises:
            ValueError: if a string does not parse, or a number in it is out of range.
            TypeError: if ``value`` has another type.

        >>> Schedule.of(3).value_at(100, total=1000).item(), Schedule.of("linear(1,0,50%)").value_at(100, 1000).item()
        (3.0, 0.8)
        """
        if isinstance(value, Schedule):
            return value
        if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
            raise TypeError(f"{name}: got {value!r} ({type(value).__name__}); expected {_FORMS}.")
        if isinstance(value, numbers.Real):
            return cls(_plain(float(value)))
        text = value.replace(" ", "")
        if (constant := _number(text)) is not None:
            return cls(constant)
        restarts, text = text.endswith(_RESTARTS), text.removesuffix(_RESTARTS)
        found = re.fullmatch(rf"({'|'.join(_KINDS)})\(([^,()]+),([^,()]+),([^,()]+?)(%?)\)", text)
        read = [number for part in found.groups()[1:4] if (number := _number(part)) is not None] if found else []
        if found is None or len(read) < 3:
            raise ValueError(f"{name}: got {value!r}; expected {_FORMS}. Example: linear(1,0.05,25%).")
        (initial, final, over), relative, kind = read, bool(found[5]), found[1]
        if not 0 < over < math.inf or (relative and over > 100):
            expected = "a percentage of the run in (0, 100]" if relative else "a number of steps > 0"
            raise ValueError(f"{name}: got {value!r}; expected {expected} as its last number, such as 25%.")
        if kind == "exponential" and min(initial, final) <= 0:
            raise ValueError(
                f"{name}: got {value!r}; expected numbers > 0 for an exponential. Try "
                f"linear({found[2]},{found[3]},{found[4]}{found[5]})."
            )
        if kind == "horizon" and max(initial, final) >= 1:
            raise ValueError(f"{name}: got {value!r}; expected numbers < 1, which have a horizon 1 / (1 - x).")
        if restarts and relative:
            raise ValueError(
                f"{name}: got {value!r}; expected a number of learner steps as its last number, because a schedule "
                "that restarts at each reset cannot change over a percentage of the run."
            )
        over = float(decimal.Decimal(found[4]) / 100) if relative else over
        return cls(initial, final, over, relative, cast(Kind, kind), restarts)

    @property
    def is_constant(self) -> bool:
        """Whether the value never changes."""
        return self.kind == "constant"

    @property
    def extremes(self) -> tuple[float, float]:
        """Lowest and highest value.

        >>> Schedule.of("linear(1,0.05,25%)").extremes
        (0.05, 1)
        """
        values = (self.initial, self.initial if self.final is None else self.final)
        return min(values), max(values)

    def value_at(self, step: Any, total: int) -> "np.ndarray":
        """Compute the values at steps of a run.

        Args:
            step: Step, or an array of steps; for a schedule that restarts, counted from the last reset.
            total: Number of steps of the run.

        Returns:
            float64 array with the shape of ``step``.

        >>> Schedule.of("exponential(10,3,100)").value_at([0, 50, 100], total=1000).round(2).tolist()
        [10.0, 5.48, 3.0]
        """
        import numpy as np

        step = np.asarray(step)
        if self.kind == "constant" or self.final is None:
            return np.full(step.shape, self.initial, np.float64)
        length = self.over * total if self.relative else self.over
        progress = np.minimum(step / length, 1.0) if length > 0 else np.ones(step.shape, np.float64)
        if self.kind == "exponential":
            return np.asarray(self.initial * (self.final / self.initial) ** progress, np.float64)
        if self.kind == "horizon":
            return np.asarray(1 - (1 - self.initial) * ((1 - self.final) / (1 - self.initial)) ** progress, np.float64)
        if self.kind == "cosine":
            progress = (1 - np.cos(np.pi * progress)) / 2
        return np.asarray((1 - progress) * self.initial + progress * self.final, np.float64)

    def to_json(self) -> float | str:
        """Return the number of a constant schedule, otherwise the string; :meth:`of` reads both.

        >>> Schedule(3).to_json(), Schedule.of("linear(5,1,50%)").to_json()
        (3, 'linear(5,1,50%)')
        """
        return self.initial if self.is_constant else str(self)

    def __str__(self) -> str:
        if self.is_constant or self.final is None:
            return _text(self.initial)
        over = f"{_percentage(self.over)}%" if self.relative else _text(self.over)
        return f"{self.kind}({_text(self.initial)},{_text(self.final)},{over}){_RESTARTS if self.restarts else ''}"


def _plain(number: float) -> float:
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return _plain(number) if math.isfinite(number) else None


def _text(number: float) -> str:
    return repr(_plain(float(number)))


def _percentage(fraction: float) -> str:
    """Return a fraction as a decimal percentage; dividing it by 100 gives exactly the fraction."""
    return f"{(decimal.Decimal(repr(float(fraction))) * 100).normalize():f}"
