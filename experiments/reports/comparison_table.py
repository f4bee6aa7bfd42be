"""Tables of a comparison: returns, and probabilities of improvement."""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...agents.fields import check_name
from ...tables import TableFormat, table
from .scores import ALL, MEASURES, SCALED
from .statistics import STATISTICS, Estimate, Statistic

if TYPE_CHECKING:
    from .comparison import Comparison, Row

COLUMNS = 100  # of a caption's lines
NAMES = {"iqm": "interquartile mean", "mean": "mean", "median": "median"}


def comparison_table(
    comparison: "Comparison",
    form: TableFormat = "text",
    *,
    statistics: Sequence[Statistic] = ("iqm",),
    caption: bool = True,
) -> str:
    """Table of the returns of a comparison, with a dash or an empty CSV cell for a number that is not defined.

    Args:
        comparison: Comparison.
        form: ``text``, ``markdown`` or ``csv``. A CSV has a column for each number and all statistics.
        statistics: Statistics over seeds, of ``iqm``, ``mean`` and ``median``. With several, each has its own line.
        caption: Whether to write the definitions of the numbers below the table; a CSV has none.

    Raises:
        ValueError: if there is no statistic, or an unknown one.
    """
    chosen = _statistics(statistics)
    header, rows = _numbers(comparison) if form == "csv" else _cells(comparison, chosen)
    return table(header, rows, form) + (_below(_caption(comparison, chosen), form) if caption else "")


def improvement_table(comparison: "Comparison", form: TableFormat = "text", *, caption: bool = True) -> str:
    """Table of the probability of improvement of each group over each later one.

    Args:
        comparison: Comparison.
        form: ``text``, ``markdown`` or ``csv``. A CSV has a column for each number.
        caption: Whether to write the definition below the table; a CSV has none.

    Raises:
        ValueError: if there are fewer than two groups in each environment.
    """
    found = comparison.improvements()
    if not found:
        raise ValueError("improvement: got one group in each environment; expected two or more groups to compare.")
    header, csv = ["group X", "group Y", "environment"], form == "csv"
    if csv:
        header = ["group", "over", "environment"]
        header += [f"{measure}_{part}" for measure in MEASURES for part in ("probability", "low", "high")]
    else:
        header += [f"{measure} P(X > Y)" for measure in MEASURES]
    rows = []
    for row in found:
        both = (row.training, row.greedy)
        cells = [_number(one) for pair in both for one in pair] if csv else [_with_interval(pair, 2) for pair in both]
        rows.append([row.group, row.over, row.environment, *cells])
    lines = [
        "P(X > Y): probability that a run of X has a higher return than a run of Y, with one half for a tie "
        "[95 % stratified bootstrap interval; it takes two seeds of each].",
        f"Training: mean of the last {comparison.window} training episodes at the end of a run. "
        "Greedy: mean of its final evaluation.",
    ]
    if any(row.environment == ALL for row in found):
        lines.append(f"{ALL}: mean over the environments.")
    return table(header, rows, form) + (_below(lines, form) if caption else "")


def html_table(comparison: "Comparison", statistics: Sequence[Statistic] = ("iqm",)) -> str:
    """HTML of the table of returns, with its caption below, as a notebook shows it."""
    header, rows = _cells(comparison, _statistics(statistics))
    lines = [
        f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"
        for tag, cells in (("th", header), *(("td", row) for row in rows))
    ]
    caption = "<br>".join(html.escape(line) for line in _caption(comparison, statistics))
    return f"<table>\n<thead>{lines[0]}</thead>\n<tbody>{''.join(lines[1:])}</tbody>\n</table>\n<p>{caption}</p>"


def _statistics(statistics: Sequence[Statistic]) -> list[Statistic]:
    if not statistics:
        raise ValueError(f"statistics: got none; expected one or more of {', '.join(STATISTICS)}.")
    for statistic in statistics:
        check_name(statistic, STATISTICS, "statistics")
    return list(dict.fromkeys(statistics))


def _cells(comparison: "Comparison", statistics: Sequence[Statistic]) -> tuple[list[str], list[list[str]]]:
    several = len(statistics) > 1
    header = ["group", "environment", "seeds", *(["statistic"] if several else []), "training return", "greedy return"]
    with_steps, with_greedy_steps = comparison.threshold is not None, _has_greedy_steps(comparison)
    header += [f"steps to {comparison.threshold:g}"] if with_steps else []
    header += [f"greedy steps to {comparison.threshold:g}"] if with_greedy_steps else []
    rows = []
    for row in comparison.rows:
        others = {"unfinished": row.unfinished, "diverged": row.diverged}
        seeds = " ".join([str(row.seeds), *(f"(+ {count} {what})" for what, count in others.items() if count)])
        steps = [_steps(row, row.steps_to_threshold, row.reached, row.seeds)] if with_steps else []
        if with_greedy_steps:
            steps.append(_steps(row, row.greedy_steps_to_threshold, row.greedy_reached, row.evaluated))
        for statistic in statistics:
            returns = [_with_interval(getattr(summary, statistic)) for summary in (row.training, row.greedy)]
            rows.append([row.group, row.environment, seeds, *([statistic] if several else []), *returns, *steps])
            steps = [""] * len(steps)  # on the first line alone
    return header, rows


def _with_interval(estimate: Estimate, decimals: int | None = None) -> str:
    if math.isnan(estimate.value):
        return "-"
    decimals = decimals or (1 if abs(estimate.value) >= 10 else 3)
    value, low, high = (f"{number:.{decimals}f}" for number in estimate)
    return f"{value} [{'-' if math.isnan(estimate.low) else f'{low}, {high}'}]"


def _has_greedy_steps(comparison: "Comparison") -> bool:
    return comparison.threshold is not None and any(row.evaluated for row in comparison.rows)


def _steps(row: "Row", steps: float, reached: int, seeds: int) -> str:
    if row.environment == ALL or not seeds:
        return "-"
    return f"{steps:,.0f} ({reached}/{seeds})" if math.isfinite(steps) else f"- ({reached}/{seeds})"


def _caption(comparison: "Comparison", statistics: Sequence[Statistic]) -> list[str]:
    *some, last = (NAMES[statistic] for statistic in statistics)
    names = f"{', '.join(some)} and {last}" if some else last
    lines = [
        f"{names.capitalize()} over seeds [95 % stratified bootstrap interval; it takes two seeds].",
        f"Training return: mean of the last {comparison.window} training episodes at the end of a run. "
        "Greedy return: mean of its final evaluation.",
    ]
    if comparison.threshold is not None:
        lines.append(
            f"Steps to {comparison.threshold:g}: median over seeds of the environment step at which the mean of "
            f"{comparison.window} training episodes first reached it (seeds that reached it / seeds)."
        )
    if _has_greedy_steps(comparison):
        lines.append(
            f"Greedy steps to {comparison.threshold:g}: median over seeds of the environment step of the first "
            "evaluation within a run whose mean reached it (seeds that reached it / seeds with evaluations)."
        )
    if any(row.environment == ALL for row in comparison.rows):
        lines.append(SCALED)
    return lines


def _below(sentences: Sequence[str], form: TableFormat) -> str:
    if form == "csv":
        return ""
    lines = [line for one in sentences for line in (textwrap.wrap(one, COLUMNS) if form == "text" else [one])]
    return "".join(f"{line}\n" for line in ["", *lines])


def _numbers(comparison: "Comparison") -> tuple[list[str], list[list[str]]]:
    header = ["group", "environment", "seeds", "unfinished", "diverged"]
    names = [f"{measure}_{statistic}" for measure in MEASURES for statistic in STATISTICS]
    header += [f"{name}{part}" for name in names for part in ("", "_low", "_high")]
    header += ["threshold", "steps_to_threshold", "reached"]
    header += ["evaluated", "greedy_steps_to_threshold", "greedy_reached"]
    threshold = math.nan if comparison.threshold is None else comparison.threshold
    rows = []
    for row in comparison.rows:
        asked = row.environment != ALL and comparison.threshold is not None
        returns = [_number(part) for summary in (row.training, row.greedy) for found in summary for part in found]
        steps = [_number(threshold if asked else math.nan), _number(row.steps_to_threshold)]
        reached, evaluated, greedy_reached = (
            str(count) if asked else "" for count in (row.reached, row.evaluated, row.greedy_reached)
        )
        greedy_steps = [evaluated, _number(row.greedy_steps_to_threshold), greedy_reached]
        group = [row.group, row.environment, str(row.seeds), str(row.unfinished), str(row.diverged)]
        rows.append([*group, *returns, *steps, reached, *greedy_steps])
    return header, rows


def _number(number: float | np.ndarray) -> str:
    return repr(float(number)) if np.isfinite(number) else ""
