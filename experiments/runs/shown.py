"""Short texts of runs: a line for ``repr``, and a table in HTML for Jupyter; neither has an array or a script."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np


def one_line(name: str, facts: Mapping[str, str]) -> str:
    """Line of the form of a call.

    >>> one_line("Run", {"agent": "dqn", "steps": "600"})
    "Run(agent='dqn', steps='600')"
    """
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in facts.items())})"


def html_table(name: str, facts: Mapping[str, str]) -> str:
    """Table in HTML with a row for each fact; texts are escaped.

    >>> html_table("Run", {"environment": "<Mine>"})
    '<table><caption>Run</caption><tr><th>environment</th><td>&lt;Mine&gt;</td></tr></table>'
    """
    rows = (f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items())
    return f"<table><caption>{html.escape(name)}</caption>{''.join(rows)}</table>"


def steps_text(metrics: Mapping[str, np.ndarray], steps: int) -> str:
    """Number of steps that a run has made, and of those it is to make where it has not ended.

    >>> steps_text({"step": np.array([100.0, 200.0])}, 600), steps_text({"step": np.array([600.0])}, 600)
    ('200 of 600', '600')
    """
    made = int(metrics["step"][-1]) if "step" in metrics else 0
    return f"{made} of {steps}" if made < steps else f"{made}"


def return_text(evaluation: Mapping[str, Any]) -> str:
    """Mean return of an evaluation, its standard error and its number of episodes.

    >>> return_text({"mean": 21.25, "standard_error": 0.5, "episodes": 20}), return_text({})
    ('21.2 ± 0.5, 20 episodes', 'none')
    """
    if not evaluation:
        return "none"
    error = "" if evaluation["standard_error"] is None else f" ± {evaluation['standard_error']:.1f}"
    return f"{evaluation['mean']:.1f}{error}, {evaluation['episodes']} episodes"


def probes_text(evaluation: Mapping[str, Any]) -> str:
    """Probes of an encoder; without labels, the spread of the projections.

    >>> probes_text({"encoder": {"probe/knn": 0.951}}), probes_text({"encoder": {}, "projection_spread": 0.5})
    ('knn 0.951', 'projection_spread 0.500')
    """
    probes = evaluation["encoder"] or {"projection_spread": evaluation["projection_spread"]}
    return ", ".join(f"{name.removeprefix('probe/')} {value:.3f}" for name, value in probes.items())
