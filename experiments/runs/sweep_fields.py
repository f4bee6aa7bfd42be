"""Fields of a sweep passed from Python: single values, and lists of values as axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .given import as_texts
from .sweep_flags import fields_of_several


def axes_of(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]], dict[str, Any]]:
    """Separate axes from single values.

    Args:
        fields: Fields by name. A list, a tuple, a range or an array is an axis; for a field whose value is a tuple, a
            list of tuples.

    Returns:
        Fields with one value, axes, and the objects that no module has, by their text.

    >>> axes_of({"target": ["none", "frozen"], "hidden_sizes": (8, 8), "steps": 300})
    ({'hidden_sizes': (8, 8), 'steps': 300}, {'target': ['none', 'frozen']}, {})
    >>> axes_of({"hidden_sizes": [(8, 8), (16,)]})[1]
    {'hidden_sizes': [(8, 8), (16,)]}
    """
    several = fields_of_several()
    axes = {name: list(value) for name, value in fields.items() if _is_axis(value, name in several)}
    single, given = as_texts({name: value for name, value in fields.items() if name not in axes})
    given = dict(given)
    for name, values in axes.items():
        for number, value in enumerate(values):
            texts, found = as_texts({name: value.item() if isinstance(value, np.generic) else value})
            values[number], given = next(iter(texts.values())), {**given, **found}
    return single, axes, given


def _is_axis(value: Any, is_tuple: bool) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        return False
    if not is_tuple:
        return True
    return any(isinstance(one, Sequence) and not isinstance(one, str) for one in value)
