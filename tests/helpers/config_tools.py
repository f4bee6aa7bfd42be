"""Types of all parts and leaves of a run's config, and random configs."""

import dataclasses
import math
import typing

from hypothesis import assume
from hypothesis import strategies as st

from polyak.agents import AGENTS, PRESETS, make_configs
from polyak.agents.fields import Range, annotations_of, is_part_type, kinds_of
from polyak.agents.schedules import Schedule
from polyak.experiments.runs.config import RunConfig, make_run_config
from polyak.experiments.runs.flags import run_flags


class Leaf(typing.NamedTuple):
    """A field that is neither a part nor a union."""

    part: type
    name: str
    annotation: typing.Any  # without None
    takes_none: bool
    within: Range
    whole: bool


def part_types(part=RunConfig):
    """The type of a config and of every part below it, those of all kinds of unions included."""
    found = [part]
    for field in dataclasses.fields(part):
        annotation = annotations_of(part)[field.name]
        below = [kind for kind in kinds_of(field).values() if kind is not None]
        below += [annotation] if is_part_type(annotation) else []
        found += [inner for kind in below for inner in part_types(kind)]
    return found


def leaf_fields(config=RunConfig):
    """Every leaf of every part."""
    found = []
    for part in part_types(config):
        for field in dataclasses.fields(part):
            annotation = annotations_of(part)[field.name]
            if kinds_of(field) or is_part_type(annotation):
                continue
            arguments = typing.get_args(annotation)
            takes_none = type(None) in arguments
            inner = next(kind for kind in arguments if kind is not type(None)) if takes_none else annotation
            within, whole = field.metadata.get("range") or Range(), field.metadata.get("whole", False)
            found.append(Leaf(part, field.name, inner, takes_none, within, whole))
    return found


def unions(config=RunConfig):
    """Name of every union to the names of its kinds."""
    fields = [field for part in part_types(config) for field in dataclasses.fields(part)]
    return {field.name: list(kinds_of(field)) for field in fields if kinds_of(field)}


def values(leaf):
    """Strategy of values that the leaf takes."""
    lowest = max(leaf.within.lowest, -100)
    highest = leaf.within.highest if math.isfinite(leaf.within.highest) else lowest + 50
    if leaf.annotation is bool:
        found = st.booleans()
    elif typing.get_origin(leaf.annotation) is typing.Literal:
        found = st.sampled_from(typing.get_args(leaf.annotation))
    elif leaf.annotation is int or leaf.whole:
        found = st.integers(lowest, highest)
    elif leaf.annotation in (float, Schedule):
        found = st.floats(lowest, highest, exclude_min=leaf.within.exclusive)
    else:
        found = {
            "target": st.sampled_from(["none", "periodic:7", "incremental:0.1"]),
            "average": st.sampled_from(["none", "incremental:0.1"]),
            "hidden_sizes": st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
            "transition_sizes": st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
            "loggers": st.lists(st.sampled_from(["csv", "wandb"]), unique=True).map(tuple),
            "wrappers": st.lists(st.just("my_module:wrap"), max_size=2).map(tuple),
            "terms": st.lists(st.just("mine=0.5*my_module:term"), max_size=2).map(tuple),
            "env_kwargs": st.integers(0, 9).map(lambda size: f'{{"size": {size}}}'),
            "agent_module": st.sampled_from(["none", "math"]),  # it is imported when the config is read
        }.get(leaf.name, st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5))
    if leaf.annotation is Schedule:
        over = st.one_of(st.integers(1, 99).map("{}%".format), st.integers(1, 9**9))
        changing = st.tuples(st.sampled_from(["linear", "cosine"]), found, found, over)
        found = st.one_of(found, changing.map(lambda drawn: "{}({},{},{})".format(*drawn)))
    return st.one_of(st.none(), found) if leaf.takes_none else found


LEAVES = {leaf.name: leaf for leaf in leaf_fields() if leaf.name not in ("agent_name", "preset")}


@st.composite
def run_configs(draw):
    """Strategy of configs of runs, of any agent, preset and kinds, with a few other values."""
    agent, preset = draw(st.sampled_from([*AGENTS])), draw(st.sampled_from([*PRESETS]))
    kinds = {name: draw(st.sampled_from(names)) for name, names in unions().items() if draw(st.booleans())}
    if kinds.get("core", "lstm" if agent == "r2d2" else "none") == "lstm":
        kinds["windows"] = "sequences"
    names = [flag.name for flag in run_flags(make_configs(agent, preset), kinds) if flag.name in LEAVES]
    chosen = draw(st.lists(st.sampled_from(names), max_size=5, unique=True))
    fields = kinds | {"steps": 10**7} | {name: draw(values(LEAVES[name])) for name in chosen}
    try:
        return make_run_config(agent, preset, fields)
    except ValueError:  # fields that exclude each other
        assume(False)
