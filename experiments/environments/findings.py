"""Findings of ``polyak check``: the result of each check, and the conversion of exceptions into failures."""

import pathlib
import traceback
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from .types import in_short

Status = Literal["passed", "warning", "failed", "not applicable"]
Verdict = tuple[Status, str]
_LIBRARIES = ("contextlib", "functools", "gymnasium", "jax", "jaxlib", "numpy", "polyak")  # no places of a user's fault


class Finding(NamedTuple):
    """Result of one check of an environment.

    Attributes:
        check: Name of the check.
        status: Whether the environment passed the check. A ``warning`` is no failure; ``not applicable`` means that the
            check was not run.
        detail: Observed values; for a failure also the way out.

    >>> print(Finding("starts", "passed", "all starts differ"))
    passed          starts              all starts differ
    """

    check: str
    status: Status
    detail: str

    def __str__(self) -> str:
        """Return the line of ``polyak check``."""
        return f"{self.status:<16}{self.check:<20}{self.detail}"


def judged(check: str, judge: Callable[[], Verdict]) -> Finding:
    """Finding of a check; an exception of the environment is a failure.

    >>> judged("speed", lambda: ("passed", "9 steps/s")).status, judged("speed", lambda: 1 / 0).detail
    ('passed', 'ZeroDivisionError: division by zero')
    """
    try:
        return Finding(check, *judge())
    except Exception as error:
        return failure(check, error)


def attempted(check: str, function: Callable[[], Any], way_out: str) -> tuple[Any, Finding | None]:
    """Result of a function and None, or None and the failure of the check if the function raises.

    >>> attempted("traceable", lambda: 3, "")
    (3, None)
    """
    try:
        return function(), None
    except Exception as error:
        return None, failure(check, error, way_out)


def failure(check: str, error: Exception, way_out: str = "") -> Finding:
    """Finding for an exception: its place in the environment, its class, the first line of its message, the way out."""
    lines = [
        f"{pathlib.Path(frame.f_code.co_filename).name}:{line}: "
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _LIBRARIES
    ]
    text = f"{(lines or [''])[-1]}{in_short(error).splitlines()[0]}"
    return Finding(check, "failed", f"{text.rstrip('.')}. {way_out}" if way_out else text)


def skipped(checks: tuple[str, ...], reason: str) -> list[Finding]:
    """Findings of checks that cannot be run.

    >>> [finding.status for finding in skipped(("starts", "speed"), "traceable failed")]
    ['not applicable', 'not applicable']
    """
    return [Finding(check, "not applicable", reason) for check in checks]


def lengths_verdict(lengths: list[int], returns: str, steps: int, num_envs: int) -> Verdict:
    """Verdict about the lengths of complete episodes; a warning if no episode ended.

    >>> lengths_verdict([9, 12], "", 100, 1)
    ('passed', '2 episodes ended, after 9 to 12 steps')
    """
    if lengths:
        return "passed", f"{len(lengths)} episodes ended, after {min(lengths)} to {max(lengths)} steps{returns}"
    copies = f" of {num_envs} environments" if num_envs > 1 else ""
    return "warning", (
        f"no episode ended within {steps} steps{copies} under random actions. Give more --steps, or truncate episodes "
        "with a time limit."
    )
