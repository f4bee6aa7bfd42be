"""Target rules: the step size and the period of target network updates, as data with a text.

======================================  ==================================================================
text                                    meaning, in learner steps
======================================  ==================================================================
``periodic:500``                        copy every 500 steps (hard target; DQN)
``incremental:0.005``                   average with step size 0.005 at every step (soft target; DDPG, BYOL)
``incremental:0.005@4``                 average with step size 0.005 every 4 steps
``incremental:cosine(0.004)``           half-cosine decay of the step size from 0.004 to 0 over the run (BYOL)
``incremental:cosine(0.004,20000)``     half-cosine decay from 0.004 to 0 over 20 000 steps
``frozen``                              no update
``none``                                no copy: bootstrap from the current online parameters
======================================  ==================================================================

A period followed by ``env`` (``periodic:500env``) is in environment steps; parsing converts it to learner steps.
"""

import difflib
import re
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .verbs import Scalar, check_integer, check_period, check_step_size

FORMS = "periodic:K, incremental:T, incremental:T@K, incremental:cosine(T), frozen, none"


class TargetRule(NamedTuple):
    """Update rule: ``target = step_size * online + (1 - step_size) * target`` every ``period`` learner steps.

    The fields may be traced arrays, so that one compiled program runs any rule. ``str(rule)`` is its text.

    Attributes:
        step_size: Weight of the online parameters, in [0, 1]; 1 copies them exact to the bit, 0 keeps the target.
        period: Number of learner steps between two updates; 0 for no copy (``none``).
        horizon: Number of learner steps over which ``step_size`` decays to 0 on a half cosine; 0 for a constant step
            size.

    >>> str(TargetRule(step_size=1.0, period=500))
    'periodic:500'
    """

    step_size: Scalar
    period: Scalar
    horizon: Scalar = 0

    def __str__(self) -> str:
        return text(self)


def periodic(period: Scalar) -> TargetRule:
    """Rule of a hard target: copy the online parameters every ``period`` learner steps (Mnih et al., 2015).

    Raises:
        ValueError: If the period is below 1.
        TypeError: If the period is not an integer.

    >>> str(periodic(500))
    'periodic:500'
    """
    check_period(period, lowest=1)
    return TargetRule(1.0, period)


def incremental(step_size: Scalar, period: Scalar = 1) -> TargetRule:
    """Rule of a soft target: average with ``step_size`` every ``period`` learner steps (Lillicrap et al., 2015).

    Raises:
        ValueError: If the step size is outside (0, 1] (use :func:`frozen` for 0) or the period is below 1.
        TypeError: If the step size is not a number or the period is not an integer.

    >>> str(incremental(0.005)), str(incremental(0.01, period=4))
    ('incremental:0.005', 'incremental:0.01@4')
    """
    return incremental_cosine(step_size, 0, period)


def incremental_cosine(step_size: Scalar, horizon: Scalar, period: Scalar = 1) -> TargetRule:
    """Rule of a soft target with step size ``step_size * (cos(pi * k / horizon) + 1) / 2`` at learner step ``k``.

    This is BYOL's schedule (Grill et al., 2020, section 3.3); its base decay 0.996 is a ``step_size`` of 0.004 here.

    Raises:
        ValueError: If the step size is outside (0, 1], the period is below 1 or the horizon is negative.
        TypeError: If the step size is not a number, or the period or the horizon is not an integer.

    >>> str(incremental_cosine(0.004, horizon=20_000))
    'incremental:cosine(0.004,20000)'
    """
    check_step_size(step_size)
    check_period(period, lowest=1)
    check_integer(horizon, "horizon", lowest=0)
    if isinstance(step_size, int | float) and step_size == 0:
        raise ValueError("step_size: got 0; the target would never change. To keep it constant, use frozen().")
    return TargetRule(step_size, period, horizon)


def frozen() -> TargetRule:
    """Rule of a target that keeps its initial parameters.

    >>> str(frozen())
    'frozen'
    """
    return TargetRule(0.0, 1)


def none() -> TargetRule:
    """Rule without a copy: the target is the current online parameters under stop-gradient.

    >>> str(none())
    'none'
    """
    return TargetRule(1.0, 0)


def is_none(rule: Any) -> bool:
    """Return whether ``rule`` is ``none``; False if the period is traced, when the target is copied at every step."""
    return isinstance(rule, TargetRule) and isinstance(rule.period, int | np.integer) and int(rule.period) == 0


def check_rule(rule: Any) -> None:
    """Raise ValueError or TypeError if a field of ``rule`` is out of range; JAX arrays are not checked."""
    if not isinstance(rule, TargetRule):
        hint = f" Did you mean polyak.updates.parse({rule!r})?" if isinstance(rule, str) else ""
        raise TypeError(f"rule: got {rule!r} ({type(rule).__name__}); expected a TargetRule.{hint}")
    check_step_size(rule.step_size)
    check_period(rule.period)
    check_integer(rule.horizon, "horizon", lowest=0)


def step_size_at(rule: TargetRule, count: Any) -> jax.Array:
    """Step size of ``rule`` for the update after ``count`` learner steps, a float32 scalar.

    >>> rule = incremental_cosine(0.004, horizon=100)
    >>> [round(float(step_size_at(rule, count)), 6) for count in (0, 50, 100)]
    [0.004, 0.002, 0.0]
    """
    step_size = jnp.asarray(rule.step_size, jnp.float32)
    horizon = jnp.asarray(rule.horizon, jnp.float32)
    # XLA turns a division by a constant into this product, so concrete and traced rules give equal bits.
    progress = jnp.clip(jnp.asarray(count, jnp.float32) * (1.0 / jnp.maximum(horizon, 1.0)), 0.0, 1.0)
    return jnp.where(horizon > 0, step_size * (jnp.cos(jnp.pi * progress) + 1.0) / 2.0, step_size)


def text(rule: TargetRule) -> str:
    """Text of a rule with concrete fields; :func:`parse` parses it to an equal rule.

    Raises:
        TypeError: If a field is traced.

    >>> text(TargetRule(0.005, 4))
    'incremental:0.005@4'
    """
    if any(isinstance(field, jax.core.Tracer) for field in rule):
        raise TypeError("rule: got a traced rule; expected concrete fields. Call text() or str() outside jit.")
    step_size, period, horizon = _shortest(rule.step_size), int(rule.period), int(rule.horizon)
    if period == 0:
        return "none"
    if float(rule.step_size) == 0:
        return "frozen"
    if float(rule.step_size) == 1 and horizon == 0:
        return f"periodic:{period}"
    size = f"cosine({step_size},{horizon})" if horizon else step_size
    return f"incremental:{size}" + (f"@{period}" if period != 1 else "")


def parse(
    rule_text: str, *, horizon: int | None = None, environment_steps_per_learner_step: Fraction | None = None
) -> TargetRule:
    """Parse a rule from its text (see the table above).

    Args:
        rule_text: Text of the rule.
        horizon: Number of learner steps of the run, over which ``cosine(T)`` decays if the text has no number of steps.
        environment_steps_per_learner_step: Ratio that converts a period in environment steps (``500env``).

    Raises:
        ValueError: If the text does not parse, a number is out of range (``periodic:0.005``), or a period in
            environment steps is not a whole number of learner steps; the message suggests a valid text.
        TypeError: If ``rule_text`` is not a string.

    >>> parse("incremental:0.005@4")
    TargetRule(step_size=0.005, period=4, horizon=0)
    >>> parse("periodic:500env", environment_steps_per_learner_step=Fraction(10))
    TargetRule(step_size=1.0, period=50, horizon=0)
    """
    if not isinstance(rule_text, str):
        raise TypeError(f"target: got {rule_text!r} ({type(rule_text).__name__}); expected a text: {FORMS}.")
    name, colon, argument = rule_text.strip().partition(":")
    if name in ("frozen", "none") and not colon:
        return frozen() if name == "frozen" else none()
    if name == "periodic":
        period = _parse_period(rule_text, argument, environment_steps_per_learner_step)
        return periodic(period)
    if name == "incremental":
        size_text, at, period_text = argument.partition("@")
        period = _parse_period(rule_text, period_text, environment_steps_per_learner_step) if at else 1
        cosine = re.fullmatch(r"cosine\(([^,()]+)(?:,([^,()]+))?\)", size_text.replace(" ", ""))
        if cosine is None:
            return incremental(_parse_step_size(rule_text, size_text), period)
        if cosine[2] is not None:
            horizon = _parse_count(rule_text, cosine[2], "the number of steps in cosine(T,STEPS)")
        if not horizon:
            raise ValueError(
                f"target: {rule_text!r} needs the number of steps of its decay. Write cosine({cosine[1]},STEPS)."
            )
        return incremental_cosine(_parse_step_size(rule_text, cosine[1]), horizon, period)
    raise ValueError(f"target: got {rule_text!r}; expected one of {FORMS}.{_did_you_mean(name, argument)}")


def _shortest(value: Any) -> str:
    # repr of a Python float is its shortest decimal; str of a NumPy scalar is the shortest decimal of its precision.
    return repr(float(value)) if isinstance(value, int | float) else str(np.asarray(value)[()])


def _parse_step_size(rule_text: str, number: str) -> float:
    try:
        step_size = float(number)
    except ValueError:
        raise ValueError(
            f"target: got {rule_text!r}; {number!r} is not a step size. Example: incremental:0.005."
        ) from None
    if step_size > 1 and step_size.is_integer():
        raise ValueError(
            f"target: got {rule_text!r}; a step size is in (0, 1]. Did you mean 'periodic:{int(step_size)}'?"
        )
    if step_size == 0:
        raise ValueError(f"target: got {rule_text!r}; the target would never change. Did you mean 'frozen'?")
    if not 0 < step_size <= 1:
        raise ValueError(f"target: got {rule_text!r}; expected a step size in (0, 1].")
    return step_size


def _parse_count(rule_text: str, number: str, what: str) -> int:
    if not re.fullmatch(r"[0-9][0-9_]*", number) or not 1 <= int(number) < 2**31:
        raise ValueError(f"target: got {rule_text!r}; {number!r} is not {what}: an integer >= 1, below 2**31.")
    return int(number)


def _parse_period(rule_text: str, number: str, environment_steps_per_learner_step: Fraction | None) -> int:
    try:
        fraction = float(number)
    except ValueError:
        fraction = 1.0
    if 0 < fraction < 1:
        raise ValueError(
            f"target: got {rule_text!r}; a period is a whole number of steps. Did you mean 'incremental:{number}'?"
        )
    count = _parse_count(rule_text, number.removesuffix("env"), "a period")
    if not number.endswith("env"):
        return count
    if environment_steps_per_learner_step is None:
        raise ValueError(
            f"target: {rule_text!r} is in environment steps, but the ratio to learner steps is not known here. Give "
            "learner steps, or environment_steps_per_learner_step."
        )
    period = Fraction(count) / environment_steps_per_learner_step
    if period.denominator != 1:
        unit = environment_steps_per_learner_step
        nearest = [steps for k in (int(period), int(period) + 1) if k and (steps := k * unit).denominator == 1]
        ways = " or ".join(f"{steps}env" for steps in nearest) or f"a multiple of {unit}"
        raise ValueError(
            f"target: got {rule_text!r}; with {unit} environment steps per learner step, the period is not a whole "
            f"number of learner steps. The nearest valid periods: {ways}."
        )
    return int(period)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _did_you_mean(name: str, argument: str) -> str:
    known = {"periodic": "periodic", "hard": "periodic", "copy": "periodic", "incremental": "incremental"}
    known |= {"soft": "incremental", "polyak": "incremental", "ema": "incremental", "frozen": "frozen", "none": "none"}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    if close:
        meant = known[close[0]]
        decay = _number(argument)
        if meant == "incremental" and decay is not None and 0.5 < decay < 1:
            return f" Did you mean 'incremental:{round(1 - decay, 12):g}', the step size of a decay of {argument}?"
        return f" Did you mean '{meant}{':' + argument if argument and meant not in ('frozen', 'none') else ''}'?"
    if (number := _number(name)) is None:
        return ""
    return f" Did you mean '{'incremental' if number < 1 else 'periodic'}:{name}'?"
