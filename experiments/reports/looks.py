"""Colors and dashes of the lines of figures: by the order of groups, or by the families of their target rules."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from .sweep_axes import RulePlace, axes_of, place_of, value_of

if TYPE_CHECKING:
    from .comparison import Comparison

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's: for all eyes
DASHES = ("-", "--", ":", "-.")  # the next one when all colors are used
MANY = 8  # rules; from this number on, each family has a column of panels
SHADES = 0.35, 0.95  # of the colormap of a hue: the fastest and the slowest target

Hue = Literal["none", "hard", "hard env", "soft", "other", "frozen"]
Look = dict[str, Any]
TITLES: Mapping[Hue, str] = {
    "hard": "hard targets",
    "hard env": "hard targets (environment steps)",
    "soft": "soft targets",
    "other": "other rules",
}
_COLORS_OF: Mapping[Hue, tuple[str, str]] = {  # of one rule, and the colormap of several
    "hard": (COLORS[0], "Blues"),
    "hard env": (COLORS[3], "Purples"),
    "soft": (COLORS[1], "Oranges"),
    "other": (COLORS[2], "Greens"),
}
_ORDER: tuple[Hue, ...] = ("none", "hard", "hard env", "soft", "other", "frozen")
_ALONE: Mapping[Hue, Look] = {
    "none": {"color": "#000000", "linestyle": "-"},
    "frozen": {"color": "0.55", "linestyle": "--"},
}


def group_looks(comparison: "Comparison") -> dict[str, Look]:
    """Look of each group: by family if each has a target rule of its own, else by the order of the groups."""
    places = rule_places(comparison)
    return rule_looks(places) if places else ordered_looks(comparison.scores)


def ordered_looks(names: Iterable[str]) -> dict[str, Look]:
    """Look of each name by its position.

    >>> ordered_looks(["a", "b"])["b"]
    {'color': '#D55E00', 'linestyle': '-'}
    """
    return {
        name: {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number // len(COLORS) % len(DASHES)]}
        for number, name in enumerate(names)
    }


def rule_looks(places: Mapping[str, RulePlace]) -> dict[str, Look]:
    """Look of each target rule, sorted: a hue for each family, with shades from light (fast) to dark (slow).

    >>> looks = rule_looks({text: place_of(text) for text in ("none", "periodic:50", "incremental:0.005")})
    >>> [look["color"] for look in looks.values()]
    ['#000000', '#0072B2', '#D55E00']
    """
    import matplotlib  # heavy
    from matplotlib.colors import to_hex

    looks: dict[str, Look] = {}
    members: dict[Hue, list[str]] = {}
    for name, place in sorted(places.items(), key=lambda item: item[1].order):
        members.setdefault(hue_of(place), []).append(name)
    for hue in [hue for hue in _ORDER if hue in members]:
        names = members[hue]
        for number, name in enumerate(names):
            if hue in _ALONE:
                looks[name] = dict(_ALONE[hue])
                continue
            color, colormap = _COLORS_OF[hue]
            if len(names) > 1:
                low, high = SHADES
                color = to_hex(matplotlib.colormaps[colormap](low + (high - low) * number / (len(names) - 1)))
            looks[name] = {"color": color, "linestyle": "-"}
    return looks


def pattern_looks(patterns: Iterable[str]) -> dict[str, Look]:
    """Look of each pattern of rules (:class:`~polyak.experiments.reports.sweep_axes.RulePlace`).

    >>> looks = pattern_looks(["none", "periodic:K", "incremental:T@4"])
    >>> [look["color"] for look in looks.values()]
    ['#000000', '#0072B2', '#009E73']
    """
    others, looks = 0, dict[str, Look]()
    for pattern in patterns:
        hue = hue_of(place_of(pattern.replace("K", "1").replace("T", "0.5")))
        looks[pattern] = dict(_ALONE.get(hue) or {"color": _COLORS_OF[hue][0], "linestyle": "-"})
        if hue == "other":
            looks[pattern] = {"color": COLORS[2 + others % 4], "linestyle": DASHES[others // 4 % len(DASHES)]}
            others += 1
    return looks


def hue_of(place: RulePlace) -> Hue:
    """Hue of a rule: its family, or ``other`` for a family with more than a number (``incremental:0.005@4``)."""
    return place.family if place.plain else "other"


def family_columns(places: Iterable[RulePlace]) -> list[Hue]:
    """Hues that have a column of panels; empty for fewer than eight rules, or for one hue.

    >>> family_columns(place_of(text) for text in ("none", "periodic:50", "incremental:0.005"))
    []
    """
    hues = [hue_of(place) for place in places]
    columns = [hue for hue in TITLES if hue in hues]
    return columns if len(hues) >= MANY and len(columns) > 1 else []


def rule_places(comparison: "Comparison") -> dict[str, RulePlace]:
    """Place of the target rule of each group; empty unless the groups have as many target rules as there are groups."""
    settings = comparison.settings
    rules = [axis for axis in axes_of(comparison) if axis.kind == "rule" and len(axis.values) == len(settings)]
    return {group: place_of(value_of(settings[group][rules[0].field])) for group in settings} if rules else {}
