"""No option is accepted and not read: each changes the programs of a small agent that has its part.

The options are those of ``AgentConfig`` and of all parts that its unions can hold, by ``dataclasses.fields``, so that a
field that is added without an effect fails here. Programs are compared as jaxprs; nothing is compiled.
"""

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from agent_samples import make_config, random_sample, timestep
from polyak.agents import AgentConfig, Schedule, make_agent
from polyak.agents.fields import annotations_of, is_part_type, kinds_of
from polyak.agents.parts import leaves
from polyak.replay import EnvironmentSpec

IMAGES = EnvironmentSpec(jax.ShapeDtypeStruct((36, 36, 1), np.dtype(np.uint8)), num_actions=2)
SMALL = {
    "hidden_sizes": (2,),
    "num_atoms": 3,
    "num_quantiles": 2,
    "num_members": 2,
    "num_iterations": 2,
    "lstm_size": 2,
}
TEXTS = {"target": ["periodic:7", "incremental:0.5"], "average": ["none", "incremental:0.5"]}
TEXTS |= {
    "reset_period": ["20", "30"],
    "shift_every": ["20", "30"],
    "reset_parts": ["head", "torso"],
    "shrink_parts": ["", "torso"],
}
# The two ends of a support are given together.
SUPPORT = {"v_min": {"v_max": 9.0}, "v_max": {"v_min": -9.0}}


def options(part: type, fields: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every leaf and union of a part and of the parts below it, with the fields that bring the part."""
    found = []
    for field in dataclasses.fields(part):
        annotation = annotations_of(part)[field.name]
        for name, kind in kinds_of(field).items():
            found += options(kind, {**fields, field.name: name}) if kind is not None else []
        if is_part_type(annotation) and not kinds_of(field):
            found += options(annotation, fields)
        else:
            found.append((field.name, fields))
    return found


OPTIONS = options(AgentConfig, {})


def values_of(name: str, fields: dict[str, Any]) -> list[Any]:
    """Values of an option, each of which is to give other programs than the others."""
    field, annotation = field_of(name, fields)
    if kinds_of(field):
        return list(kinds_of(field))
    if typing.get_origin(annotation) is typing.Literal:
        return [choice for choice in typing.get_args(annotation) if choice != "auto"]
    if name in TEXTS:
        return TEXTS[name]
    default = leaves(make_config(**fields))[name] if name not in SUPPORT else -1.0 if name == "v_min" else 1.0
    if name in SUPPORT:
        return [default, 2 * default]
    if isinstance(default, bool):
        return [False, True]
    if default is None:
        return [None, 0.25, 0.5]
    if isinstance(default, int):
        return [1, 2] if default < 3 else [default, default + 1]
    if isinstance(default, float):
        return [default, 0.5 * default if default else 0.5]
    if isinstance(default, tuple):
        return [(2,), (3,), (2, 2)]
    assert isinstance(default, Schedule), f"{name}: write down two values for {default!r}"
    return [0.25, 0.5, "linear(0.5,0.25,10)"]


def field_of(name: str, fields: dict[str, Any]) -> tuple[Any, Any]:
    """Field and annotation of a leaf of a config."""

    def search(part: Any) -> tuple[Any, Any] | None:
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name == name:
                return field, annotations_of(type(part))[name]
            if dataclasses.is_dataclass(value) and (found := search(value)):
                return found
        return None

    found = search(make_config(**fields))
    assert found is not None, name
    return found


def constants(program: Any) -> Iterator[Any]:
    """Constants of a program and of the functions that it calls."""
    yield from program.consts
    for equation in program.jaxpr.eqns:
        for value in equation.params.values():
            if hasattr(value, "consts"):
                yield from constants(value)


def small(fields: dict[str, Any]) -> AgentConfig:
    """Config of an agent that is quick to trace."""
    present = leaves(make_config(**fields))
    return make_config(**{name: size for name, size in SMALL.items() if name in present} | fields)


@functools.cache
def programs_of(config: AgentConfig) -> str:
    """Init, learner step, acting and rules of an agent, as text."""
    agent = make_agent(config, IMAGES, total_learner_steps=100)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    has_core = config.network.core is not None
    sample = random_sample(config, IMAGES, steps=3 if has_core else None, batch=2)
    recurrent_state = jax.eval_shape(lambda key: agent.initial_recurrent_state(key, 2), jax.random.key(0))
    shown, key = timestep(config, IMAGES, num_envs=2), jax.random.key(0)
    texts = [str(target.rule) for target in agent.targets.values()]
    texts += [f"{operation.period} {operation.last}" for operation in agent.periodic.values()]
    for function, arguments in (
        (agent.init, ()),
        (agent.learn, (state, sample)),
        (agent.act, (state, recurrent_state, shown)),
        *((operation.apply, (state,)) for operation in agent.periodic.values()),
    ):
        program = jax.make_jaxpr(function)(key, *arguments)
        texts += [str(program), *(np.asarray(constant).tobytes().hex() for constant in constants(program))]
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("name", "fields"), OPTIONS, ids=[".".join([*map(str, fields.values()), name]) for name, fields in OPTIONS]
)
def test_every_option_is_read(name, fields):
    base = {"torso": "mlp"} | fields
    if name in ("torso_width", "projection", "self_prediction") or fields.get("self_prediction") == "conv":
        base |= {"torso": "minatar", "dueling": True}  # convolutions, whose features are the streams' input
    values = values_of(name, base)
    programs = [programs_of(small({**base, **SUPPORT.get(name, {}), name: value})) for value in values]
    assert len(set(programs)) == len(values), f"{name}: two of {values} give one program"


@pytest.mark.parametrize(
    "fields", [{"head": "implicit_quantile", "noisy_sigma": 0.5}, {"head": "ensemble"}, {"core": "lstm"}]
)
def test_programs_are_a_function_of_the_options(fields):
    base = {"torso": "mlp", "activation": "gelu", **fields}
    assert programs_of.__wrapped__(small(base)) == programs_of.__wrapped__(small(base))


def test_the_options_are_those_of_all_parts():
    names = {name for name, _ in OPTIONS}
    assert {"torso", "lstm_size", "num_members", "munchausen_clip", "weight_decay", "target", "head"} <= names
    assert names >= set(leaves(AgentConfig()))
