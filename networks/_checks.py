"""Checks of the arguments of this package; each error names the allowed values and a way out."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def check_choice(field: str, got: Any, allowed: Iterable[str]) -> None:
    """Raise ValueError unless ``got`` is one of ``allowed``; the message names the closest allowed value."""
    names = sorted(allowed)
    if got in names:
        return
    closest = difflib.get_close_matches(str(got).lower(), names, n=1, cutoff=0.5)
    hint = f" Did you mean {closest[0]!r}?" if closest else ""
    raise ValueError(f"{field}: got {got!r}; expected one of {', '.join(map(repr, names))}.{hint}")


def check_positive(field: str, got: Any) -> None:
    """Raise unless ``got`` is an integer >= 1: TypeError for another type, ValueError for a smaller number."""
    if not isinstance(got, int) or isinstance(got, bool):
        raise TypeError(f"{field}: got {got!r}, a {type(got).__name__}; expected an int >= 1. Convert it with int().")
    if got < 1:
        raise ValueError(f"{field}: got {got}; expected an integer >= 1. Give at least 1.")


def check_sizes(field: str, got: Any) -> None:
    """Raise unless ``got`` is a sequence of integers >= 1; it may be empty."""
    if not isinstance(got, Sequence) or isinstance(got, str):
        raise TypeError(f"{field}: got {got!r}; expected a sequence of layer sizes. Write one layer as ({got},).")
    for index, size in enumerate(got):
        check_positive(f"{field}[{index}]", size)


def check_finite(field: str, got: Any) -> None:
    """Raise unless ``got`` is a finite real number: TypeError for another type, ValueError for NaN and infinity."""
    if isinstance(got, bool) or not isinstance(got, int | float | np.floating | np.integer):
        raise TypeError(f"{field}: got {got!r}, a {type(got).__name__}; expected a number. Convert it with float().")
    if not math.isfinite(got):
        raise ValueError(f"{field}: got {got}; expected a finite number.")


def check_nonnegative(field: str, got: Any) -> None:
    """Raise unless ``got`` is a finite number >= 0."""
    check_finite(field, got)
    if got < 0:
        raise ValueError(f"{field}: got {got}; expected a number >= 0.")
