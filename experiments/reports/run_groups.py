"""Groups of the runs of a comparison, their labels, and notes on the runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...agents.fields import did_you_mean
from ...agents.parts import leaves
from ...agents.presets import make_configs, own_leaves
from ..runs.config import RunConfig
from .found_runs import FoundRun

Groups = Mapping[str, Mapping[str, list[FoundRun]]]  # by label, by environment
Settings = Mapping[str, Mapping[str, Any]]  # by label, by field
AGENT = "agent"  # beside the fields of the config
MOST_NAMED = 5  # runs that have diverged, in notes


def without_repeats(runs: Iterable[FoundRun]) -> tuple[list[FoundRun], list[str]]:
    """Keep one run of each config, environment and seed: a finished one, the furthest, or the first, in this order.

    Returns:
        The runs that are kept, and a sentence for each run that is left out.
    """
    kept: dict[tuple[str, str, int], FoundRun] = {}
    notes = []
    for run in runs:
        key = (_key(run), run.environment, run.seed)
        other = kept.setdefault(key, run)
        if other is not run:
            kept[key] = max(other, run, key=lambda one: (one.greedy is not None, one.step))
            out = run if kept[key] is other else other
            notes.append(f"{out.folder} repeats {kept[key].folder}, config and seed {run.seed}; it is left out.")
    return list(kept.values()), notes


def grouped(runs: Sequence[FoundRun], by: Sequence[str] = ()) -> Groups:
    """Group runs by label and environment, in the order of the first run of each.

    Args:
        runs: Runs.
        by: Names of config fields, or ``agent``. Runs with equal values of these fields are one group. If empty, runs
            whose configs differ only in seed, environment and :data:`CHANGES_NO_LEARNING` are one group.

    Returns:
        Label to environment to runs. A label has the fields in which the groups differ, or the fields of ``by``.

    Raises:
        ValueError: if ``by`` repeats a field, or has a field that no run has.
    """
    groups: dict[str, dict[str, list[FoundRun]]] = {}
    if not by:
        for run in runs:
            groups.setdefault(_key(run), {}).setdefault(run.environment, []).append(run)
        firsts = [_first(group) for group in groups.values()]
        labels = [_label(run, names) for run, names in zip(firsts, _shown(firsts), strict=True)]
        return dict(zip(labels, groups.values(), strict=True))
    by = [_field(name, runs) for name in by]
    if len(set(by)) < len(by):
        raise ValueError(f"group_by: got {' '.join(by)}; expected each field once.")
    for run in runs:
        groups.setdefault(_label(run, by), {}).setdefault(run.environment, []).append(run)
    return groups


def settings_of(groups: Groups, by: Sequence[str] = ()) -> Settings:
    """Values of the fields in which groups differ, or of the fields of ``by``, as in the labels of :func:`grouped`.

    Args:
        groups: Groups, as of :func:`grouped` or :func:`renamed`.
        by: Names of the fields that made the groups.

    Returns:
        Label to field to value, with the same fields for each label. The value of ``agent`` is a name, and the value of
        a field that a group does not have is None.
    """
    firsts = [_first(group) for group in groups.values()]
    names = [_field(name, firsts) for name in by] or list(dict.fromkeys(name for one in _shown(firsts) for name in one))
    return {
        label: {name: run.agent if name == AGENT else run.fields.get(name) for name in names}
        for label, run in zip(groups, firsts, strict=True)
    }


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Parse ``GROUP=NAME`` at the last ``=``, because the label of a group can contain one.

    Raises:
        ValueError: if a text has no ``=``, or two texts name one group.

    >>> parse_labels(["target=periodic:50=hard", "none=no target"])
    {'target=periodic:50': 'hard', 'none': 'no target'}
    """
    labels: dict[str, str] = {}
    for text in texts:
        group, equals, name = text.rpartition("=")
        if not equals or group in labels:
            problem = "a group that is named twice; expected one name" if equals else "expected GROUP=NAME"
            raise ValueError(f"label: got {text!r}; {problem}. Try: --label 'target=none=no target'")
        labels[group] = name
    return labels


def renamed(groups: Groups, labels: Mapping[str, str]) -> Groups:
    """Rename groups, and keep their order.

    Args:
        groups: Groups, as of :func:`grouped`.
        labels: Name of a group to its new name. A group is named by its label, by one of the fields in its label
            (``target=none``), or by the value of that field (``none``), if exactly one group has it.

    Raises:
        ValueError: if a name fits no group or several, a group is renamed twice, or two groups would have one name.
    """
    new: dict[str, str] = {}
    for text, name in labels.items():
        found = [group for group in groups if group == text] or [group for group in groups if text in _parts(group)]
        if len(found) != 1:
            fits = "fits no group" if not found else f"fits {len(found)} groups"
            raise ValueError(
                f"label: {text!r} {fits}; expected the label, or a field, of one of: {'; '.join(found or groups)}."
                f"{did_you_mean(text, groups) if not found else ''}"
            )
        if found[0] in new:
            raise ValueError(f"label: group {found[0]!r} is named {new[found[0]]!r} and {name!r}; expected one name.")
        new[found[0]] = name
    names = [new.get(group, group) for group in groups]
    for name in names:
        if not name.strip() or names.count(name) > 1:
            raise ValueError(
                f"label: got {name!r} for {names.count(name)} groups; expected a name of its own for each."
            )
    return dict(zip(names, groups.values(), strict=True))


def pooling_notes(groups: Groups) -> list[str]:
    """A sentence for each group whose runs differ in more than seed and environment, with the fields and values."""
    notes = []
    for group, strata in groups.items():
        runs = [run for one in strata.values() for run in one]
        values = {name: list(dict.fromkeys(_value(run, name) for run in runs)) for name in _names(runs)}
        differing = [f"{name} ({'; '.join(found)})" for name, found in values.items() if len(found) > 1]
        if differing:
            notes.append(
                f"group {group} pools runs that differ in {', '.join(differing)}; each of its runs counts as one seed."
            )
    return notes


def run_notes(runs: Sequence[FoundRun], threshold: float | None, window: int) -> list[str]:
    """Sentences on the runs that are unfinished, have diverged, have no curve, or cannot reach the threshold."""
    notes = []
    diverged = [run for run in runs if run.diverged is not None]
    for run in diverged[:MOST_NAMED]:
        reason = (run.diverged or "").removeprefix("diverged: ").rstrip(".") or "no reason given"
        way = f"after step {run.step} of {run.fields['steps']} ({reason})"
        notes.append(f"{run.folder} has diverged {way}: it is neither in the table nor in the curves.")
    if len(diverged) > MOST_NAMED:
        notes.append(f"{len(diverged) - MOST_NAMED} other runs have diverged; the table has their numbers by group.")
    for run in runs:
        if run.diverged is not None:
            continue
        if run.greedy is None:
            way = f"at step {run.step} of {run.fields['steps']}"
            notes.append(f"{run.folder} is unfinished, {way}: it is in the curves, but not in the table.")
        if not len(run.returns):
            notes.append(f"{run.folder} has no curve: no training episode has ended by step {run.step}.")
    few = sum(len(run.returns) < window for run in runs if run.greedy is not None)
    if threshold is not None and few:
        notes.append(
            f"{few} of {len(runs)} runs have fewer than {window} training episodes, so they cannot reach the "
            "threshold; give a smaller window."
        )
    return notes


def _key(run: FoundRun) -> str:
    return f"{run.agent} {sorted(run.fields.items())}"


def _first(group: Mapping[str, list[FoundRun]]) -> FoundRun:
    return next(iter(group.values()))[0]


def _names(runs: Iterable[FoundRun]) -> list[str]:
    return list(dict.fromkeys([AGENT, *(name for run in runs for name in run.fields)]))


def _field(name: str, runs: Sequence[FoundRun]) -> str:
    field, names = name.replace("-", "_"), _names(runs)
    if field not in names:
        raise ValueError(
            f"group_by: got {name!r}, a field that no run has; expected {AGENT!r} or fields of the configs on which "
            f"learning depends, such as 'target'.{did_you_mean(field, names)}"
        )
    return field


def _label(run: FoundRun, names: Iterable[str]) -> str:
    return ", ".join(run.agent if name == AGENT else f"{name}={_value(run, name)}" for name in names)


def _value(run: FoundRun, name: str) -> str:
    return run.agent if name == AGENT else _text(run.fields[name]) if name in run.fields else "-"


def _parts(label: str) -> set[str]:
    fields = label.split(", ")
    return {*fields, *(field.partition("=")[2] for field in fields if "=" in field)}


def _shown(runs: Sequence[FoundRun]) -> list[list[str]]:
    """Fields of labels: the agent if there are several, and fields that differ but do not follow from others shown.

    A field is shown if runs of one agent have several values of it, or if it departs from the agent's own value in some
    of the runs and another agent does not have this value. A run without a field has another kind of part, whose field
    is shown.
    """
    departures = [_departures(run) for run in runs]
    several = len({run.agent for run in runs}) > 1
    found = []
    for run, departed in zip(runs, departures, strict=True):
        shown = [
            name
            for name, value in run.fields.items()
            if any(other.agent == run.agent and other.fields.get(name, value) != value for other in runs)
            or (
                name in departed
                and any(
                    other.agent != run.agent and another.get(name) != value
                    for other, another in zip(runs, departures, strict=True)
                )
            )
        ]
        found.append([AGENT, *shown] if several or not shown else shown)
    return found


def _departures(run: FoundRun) -> dict[str, Any]:
    """Fields in which a run differs from its agent under its preset."""
    own = leaves(RunConfig()) | own_leaves(run.begins_with) | leaves(make_configs(run.begins_with, run.preset))
    return {name: value for name, value in run.fields.items() if own.get(name) != value}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
