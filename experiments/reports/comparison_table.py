"""The table of a comparison, for a terminal, a page or a program."""

import math

import numpy as np

from ...tables import TableFormat, table
from .comparison import ALL, Comparison, Estimate, Row


def comparison_table(comparison: Comparison, form: TableFormat = "text") -> str:
    """The rows of a comparison: as text or Markdown with a caption below, or as CSV with a column for each number.

    What is not defined is a dash, in CSV an empty cell.
    """
    header, rows = (_numbers if form == "csv" else _cells)(comparison)
    return table(header, rows, form) + ("" if form == "csv" else f"\n{_caption(comparison)}")


def _cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    header = ["group", "environment", "seeds", "training return", "greedy return"]
    rows = [
        [
            row.group,
            row.environment,
            f"{row.seeds}" + (f" (+ {row.unfinished} unfinished)" if row.unfinished else ""),
            _with_interval(row.training),
            _with_interval(row.greedy),
        ]
        for row in comparison.rows
    ]
    if comparison.threshold is not None:
        header.append(f"steps to {comparison.threshold:g}")
        steps = [_steps(row, row.steps_to_threshold, row.reached, row.seeds) for row in comparison.rows]
        rows = [[*cells, cell] for cells, cell in zip(rows, steps, strict=True)]
    if _has_greedy_steps(comparison):
        header.append(f"greedy steps to {comparison.threshold:g}")
        steps = [
            _steps(row, row.greedy_steps_to_threshold, row.greedy_reached, row.evaluated) for row in comparison.rows
        ]
        rows = [[*cells, cell] for cells, cell in zip(rows, steps, strict=True)]
    return header, rows


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    decimals = 1 if abs(estimate.value) >= 10 else 3
    value, low, high = (f"{number:.{decimals}f}" for number in estimate)
    return f"{value} [{'-' if math.isnan(estimate.low) else f'{low}, {high}'}]"


def _has_greedy_steps(comparison: Comparison) -> bool:
    return comparison.threshold is not None and any(row.evaluated for row in comparison.rows)


def _steps(row: Row, steps: float, reached: int, seeds: int) -> str:
    if row.environment == ALL or not seeds:
        return "-"
    return f"{steps:,.0f} ({reached}/{seeds})" if math.isfinite(steps) else f"- ({reached}/{seeds})"


def _caption(comparison: Comparison) -> str:
    lines = [
        "Interquartile mean over seeds [95 % stratified bootstrap interval; it takes two seeds].",
        f"Training return: mean of the last {comparison.window} training episodes at the end of a run. "
        "Greedy return: mean of its evaluation.",
    ]
    if comparison.threshold is not None:
        lines.append(
            f"Steps to {comparison.threshold:g}: median over seeds of the environment step at which the mean of "
            f"{comparison.window} training episodes first reached it (seeds that did / seeds)."
        )
    if _has_greedy_steps(comparison):
        lines.append(
            f"Greedy steps to {comparison.threshold:g}: the same of the first evaluation within a run whose mean "
            "reached it."
        )
    if any(row.environment == ALL for row in comparison.rows):
        lines.append(f"{ALL}: each environment's returns scaled from 0, its lowest run here, to 1, its highest.")
    return "".join(f"{line}\n" for line in lines)


def _numbers(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    header = ["group", "environment", "seeds", "unfinished"]
    header += [f"{measure}_{part}" for measure in ("training", "greedy") for part in ("iqm", "low", "high")]
    header += ["threshold", "steps_to_threshold", "reached"]
    header += ["evaluated", "greedy_steps_to_threshold", "greedy_reached"]
    threshold = math.nan if comparison.threshold is None else comparison.threshold
    rows = []
    for row in comparison.rows:
        asked = row.environment != ALL and comparison.threshold is not None
        numbers = (*row.training, *row.greedy, threshold if asked else math.nan, row.steps_to_threshold)
        *texts, greedy_steps = [
            repr(float(number)) if np.isfinite(number) else "" for number in (*numbers, row.greedy_steps_to_threshold)
        ]
        counts = [str(count) if asked else "" for count in (row.reached, row.evaluated, row.greedy_reached)]
        group = [row.group, row.environment, str(row.seeds), str(row.unfinished)]
        rows.append([*group, *texts, *counts[:2], greedy_steps, counts[2]])
    return header, rows
