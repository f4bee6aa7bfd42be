"""Axes of a comparison: the fields in which its groups differ, their values in order, and families of target rules."""

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ...agents.schedules import Schedule
from ...updates import Partition, TargetRule, parse_named, rules_by_part
from .run_groups import AGENT
from .scores import ALL, Measure

if TYPE_CHECKING:
    from .comparison import Comparison, Row

TARGET = "target"
MEASURE: Measure = "greedy"  # score of the figures of a sweep
Family = Literal["none", "hard", "hard env", "soft", "frozen", "other"]
Kind = Literal["rule", "number", "name"]
_FAST_TO_SLOW: tuple[Family, ...] = ("none", "hard", "hard env", "soft", "other", "frozen")


class RulePlace(NamedTuple):
    """Family of a text of target rules, and its place in the family.

    Attributes:
        family: ``hard`` for periodic rules, ``hard env`` for periodic rules in environment steps, ``soft`` for
            incremental rules, ``none``, ``frozen``, or ``other`` for a text that does not parse.
        number: Period of a hard target, step size of a soft target, NaN for other families.
        pattern: Text with ``K`` for the period or ``T`` for the step size; rules with one pattern differ in the number.
    """

    family: Family
    number: float
    pattern: str

    @property
    def plain(self) -> bool:
        """Whether the family and the number are the whole rule."""
        return self.pattern in ("none", "frozen", "periodic:K", "periodic:Kenv", "incremental:T")

    @property
    def order(self) -> tuple[int, str, float]:
        """Sort key: by family, then pattern, then from the fastest target to the slowest."""
        number = 0.0 if math.isnan(self.number) else -self.number if self.family == "soft" else self.number
        return _FAST_TO_SLOW.index(self.family), "" if self.plain else self.pattern, number


class Axis(NamedTuple):
    """Field in which groups differ.

    Attributes:
        field: Name of the field.
        kind: ``rule`` for target rules, ``number`` if all values are numbers, else ``name``.
        values: Distinct values: rules from fast to slow by family, numbers ascending, names in the order of the groups.
    """

    field: str
    kind: Kind
    values: tuple[Any, ...]


Point = tuple[Any, ...]  # values of some axes


def place_of(rule: str) -> RulePlace:
    """Place of a text of target rules, by the main rule of its first target.

    >>> place_of("periodic:500 q/torso=none")
    RulePlace(family='hard', number=500.0, pattern='periodic:K q/torso=none')
    >>> place_of("incremental:0.005@4")
    RulePlace(family='soft', number=0.005, pattern='incremental:T@4')
    """
    main_text = rule.strip().partition(" ")[0]
    names = re.findall(r"(?:^|\s)([^\s/=:@()]+)(?:/[^\s=]*)?=", rule)
    try:
        rules = parse_named(
            rule, list(dict.fromkeys(["q", *names])), horizon=1, environment_steps_per_learner_step=Fraction(1)
        )
    except (ValueError, TypeError):
        return RulePlace("other", math.nan, rule)
    first = next(iter(rules.values()))
    main = first.main if isinstance(first, Partition) else first
    family, number = _family_of(main, main_text)
    if family in ("none", "frozen"):
        return RulePlace(family, math.nan, rule)
    others = " ".join(f"{name}={one}" for name, one in list(rules_by_part(rules).items())[1:])
    pattern = _pattern_of(main, family)
    return RulePlace(family, number, f"{pattern} {others}".strip())


def axes_of(comparison: "Comparison") -> list[Axis]:
    """Axes of a comparison, the target rule first; empty if there are fewer than two groups.

    >>> from polyak.experiments.reports.comparison import Comparison
    >>> settings = {"a": {"target": "periodic:50", "n_steps": 3}, "b": {"target": "none", "n_steps": 3}}
    >>> axes_of(Comparison([], [], [], None, 100, {}, settings))
    [Axis(field='target', kind='rule', values=('none', 'periodic:50'))]
    """
    found = []
    for field in dict.fromkeys(name for values in comparison.settings.values() for name in values):
        values = list(dict.fromkeys(value_of(settings.get(field)) for settings in comparison.settings.values()))
        if len(values) < 2:
            continue
        if field == TARGET and all(isinstance(value, str) for value in values):
            found.append(Axis(field, "rule", tuple(sorted(values, key=lambda value: place_of(value).order))))
        elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            found.append(Axis(field, "number", tuple(sorted(values))))
        else:
            found.append(Axis(field, "name", tuple(values)))
    return sorted(found, key=lambda axis: axis.kind != "rule")


def score_axis(axes: Sequence[Axis]) -> Axis | None:
    """Horizontal axis of the final scores: the number with the most values, or the target rule; None without either."""
    numbers = [axis for axis in axes if axis.kind == "number"]
    rules = [axis for axis in axes if axis.kind == "rule"]
    return max(numbers, key=lambda axis: len(axis.values)) if numbers else rules[0] if rules else None


def map_axes(axes: Sequence[Axis]) -> tuple[Axis, Axis]:
    """Rows and columns of the heat map, of two axes or more."""
    number = [axis for axis in axes[1:] if axis.kind == "number"] or axes[1:]
    return axes[0], max(number, key=lambda axis: len(axis.values))


def value_of(value: Any) -> Any:
    """Value of a field as a hashable number or text; a constant schedule is its number.

    >>> value_of(Schedule(0.99)), value_of(Schedule.of("linear(1,0,50%)")), value_of((64, 64)), value_of(None)
    (0.99, 'linear(1,0,50%)', '64 64', '-')
    """
    if isinstance(value, Schedule) and value.is_constant:
        return value.initial
    if value is None or isinstance(value, str | int | float):
        return "-" if value is None else value
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def text_of(axis: Axis, value: Any) -> str:
    """Text of a value of an axis: the value alone for rules and agents, else with the name of the field."""
    text = f"{value:g}" if axis.kind == "number" else str(value)
    return text if axis.kind == "rule" or axis.field == AGENT else f"{axis.field}={text}"


def best_groups(
    comparison: "Comparison", axes: Sequence[Axis], environment: str, measure: Measure = MEASURE
) -> dict[Point, "Row"]:
    """Row of the best group at each point of some axes: the highest interquartile mean over all other axes.

    A point whose groups have no score has the row of its first group.

    Args:
        comparison: Comparison.
        axes: Axes that are kept.
        environment: Environment id.
        measure: Score to maximize.
    """
    found: dict[Point, Row] = {}
    for row in comparison.rows:
        if row.environment != environment or row.group not in comparison.settings:
            continue
        settings = comparison.settings[row.group]
        point = tuple(value_of(settings.get(axis.field)) for axis in axes)
        if point not in found or _score(row, measure) > _score(found[point], measure):
            found[point] = row
    return found


def best_comparison(comparison: "Comparison", axis: Axis) -> "Comparison":
    """Comparison with the best group alone for each value of an axis and each environment, as :func:`best_groups`."""
    environments = dict.fromkeys(row.environment for row in comparison.rows)
    kept = {(row.group, name) for name in environments for row in best_groups(comparison, [axis], name).values()}

    def chosen(one: Any) -> bool:
        return (one.group, one.environment) in kept

    groups = {group for group, _ in kept}
    return comparison._replace(
        rows=[row for row in comparison.rows if chosen(row)],
        curves=[curve for curve in comparison.curves if chosen(curve)],
        scores={group: scores for group, scores in comparison.scores.items() if group in groups},
        settings={group: settings for group, settings in comparison.settings.items() if group in groups},
    )


def ended_environments(comparison: "Comparison", figure: str) -> list[str]:
    """Environments in which a run has ended.

    Raises:
        ValueError: if no run has ended; ``figure`` is the name in the message.
    """
    found = [row.environment for row in comparison.rows if row.environment != ALL and row.seeds]
    if not found:
        raise ValueError(f"{figure}: no run has ended yet. Wait for the first run to end, or leave the figure out.")
    return list(dict.fromkeys(found))


def best_over(axes: Sequence[Axis], kept: Sequence[Axis]) -> list[str]:
    """Sentence on the axes that are not kept, for a caption; empty if all are kept."""
    rest = " and ".join(axis.field for axis in axes if axis not in kept)
    if not rest:
        return []
    return [
        f"Best over {rest} by the interquartile mean of the same seeds, so the scores are biased upwards, more "
        "for more values."
    ]


def diverged_runs(comparison: "Comparison") -> list[str]:
    """Sentence on the runs that have diverged, for a caption; empty without one."""
    rows = [row for row in comparison.rows if row.diverged and row.environment != ALL]
    runs = "; ".join(f"{row.diverged} of {row.group}" for row in rows)
    return [f"Scores are over the seeds that did not diverge. Diverged: {runs}."] if rows else []


def sorted_by(axes: Sequence[Axis]) -> Callable[[Point], tuple[int, ...]]:
    """Sort key of points of some axes: the positions of their values."""
    return lambda point: tuple(axis.values.index(value) for axis, value in zip(axes, point, strict=True))


def _score(row: "Row", measure: Measure) -> float:
    score = float(getattr(row, measure).iqm.value)
    return -math.inf if math.isnan(score) else score


def _family_of(rule: TargetRule, text: str) -> tuple[Family, float]:
    step_size, period = float(rule.step_size), float(rule.period)
    if period == 0:
        return "none", math.nan
    if step_size == 0:
        return "frozen", math.nan
    if step_size == 1 and not int(rule.horizon):
        return ("hard env" if text.endswith("env") else "hard"), period
    return "soft", step_size


def _pattern_of(rule: TargetRule, family: Family) -> str:
    if family != "soft":
        return "periodic:Kenv" if family == "hard env" else "periodic:K"
    size = "cosine(T)" if int(rule.horizon) == 1 else f"cosine(T,{rule.horizon})" if int(rule.horizon) else "T"
    return f"incremental:{size}" + (f"@{rule.period}" if int(rule.period) != 1 else "")
