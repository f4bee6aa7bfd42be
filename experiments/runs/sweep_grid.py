"""Grid of a sweep: its axes, the config of each lane, and the groups of lanes that share a compiled program.

The lanes of a group differ only in numbers that a program reads as data: target rules, constant learning rates, the
numbers for sampling and exploration, and the seed.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...agents.parts import leaves
from ...agents.schedules import Schedule
from ..loops.schedules import total_learner_steps
from .config import CHANGES_NO_LEARNING, RunConfig, make_run_config, to_json
from .sweep_flags import SWEEP_DEFAULTS

# Fields that are no axis, and the reason.
_NO_AXIS = {
    "seed": "give the number of seeds with --seeds, and the first one with --seed",
    "steps": "lanes of different lengths are different sweeps; the records of the longest hold the shorter ones",
    "loop": "all lanes are trained by one loop",
    **dict.fromkeys(CHANGES_NO_LEARNING, "it does not change what is learnt"),
}


class Lane(NamedTuple):
    """Lane of a sweep.

    Attributes:
        name: Path of its folder, below the folder of the sweep.
        config: Config of its run.
    """

    name: str
    config: RunConfig


class Grid(NamedTuple):
    """Grid of a sweep.

    Attributes:
        axes: Name of each axis to the texts of its values, in the order of the lanes.
        lanes: Lanes; the last axis changes fastest among the settings, and the seed among the lanes of a setting.
    """

    axes: Mapping[str, tuple[str, ...]]
    lanes: tuple[Lane, ...]


def make_grid(
    agent: str, preset: str, fields: Mapping[str, Any], axes: Mapping[str, Sequence[Any]], seeds: int
) -> Grid:
    """Make the grid of a sweep.

    Args:
        agent: Name of the agent.
        preset: Name of the preset.
        fields: Fields with one value for all lanes. Lanes have no loggers by default.
        axes: Name of each axis to its values.
        seeds: Number of seeds of each setting, from the field ``seed`` on.

    Raises:
        ValueError: if an axis is empty, repeats a value or is not allowed, ``seeds`` is below 1, or a config is
            invalid.
        TypeError: if a value does not have the type of its field.

    >>> grid = make_grid("dqn", "classic", {"env": "CartPole-v1"}, {"target": ["none", "periodic:50"]}, seeds=2)
    >>> [lane.name for lane in grid.lanes], grid.lanes[1].config.seed
    (['none/seed0', 'none/seed1', 'periodic-50/seed0', 'periodic-50/seed1'], 1)
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"seeds: got {seeds!r}; expected an integer >= 1, the number of seeds. Try --seeds 16.")
    _check_axes(axes)
    fields = {**SWEEP_DEFAULTS, **fields}
    settings = [
        make_run_config(agent, preset, {**fields, **dict(zip(axes, values, strict=True))})
        for values in itertools.product(*axes.values())
    ]
    names = _setting_names([{name: _text(leaves(config)[name]) for name in axes} for config in settings])
    lanes = [
        Lane(f"{name}/seed{seed}".removeprefix("/"), dataclasses.replace(config, seed=seed))
        for name, config in zip(names, settings, strict=True)
        for seed in range(config.seed, config.seed + seeds)
    ]
    _check_lanes(settings[0])
    texts = {name: tuple(dict.fromkeys(_text(leaves(config)[name]) for config in settings)) for name in axes}
    for name, values in axes.items():
        if len(texts[name]) < len(values):
            given = " ".join(map(str, values))
            raise ValueError(f"{name}: got {given}, which repeats a value; expected each value of an axis once.")
    return Grid(texts, tuple(lanes))


def groups_of(lanes: Sequence[Lane]) -> list[list[Lane]]:
    """Group lanes that share a compiled program, in their order.

    >>> fields = {"env": "CartPole-v1"}
    >>> grid = make_grid("c51", "classic", fields, {"num_atoms": [21, 51], "learning_rate": [0.001, 0.01]}, seeds=3)
    >>> [len(group) for group in groups_of(grid.lanes)]
    [6, 6]
    """
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(_compiled_part(lane.config), []).append(lane)
    return list(groups.values())


def label_of(group: Sequence[Lane], axes: Mapping[str, Sequence[str]]) -> str:
    """Values of the axes that all lanes of a group share, as ``num_atoms 21``; empty without one.

    >>> grid = make_grid("c51", "classic", {}, {"num_atoms": [21, 51], "learning_rate": [0.001, 0.01]}, seeds=1)
    >>> [label_of(group, grid.axes) for group in groups_of(grid.lanes)]
    ['num_atoms 21', 'num_atoms 51']
    """
    found = {name: {_text(leaves(lane.config)[name]) for lane in group} for name in axes if len(axes[name]) > 1}
    return ", ".join(f"{name} {next(iter(values))}" for name, values in found.items() if len(values) == 1)


def setting_of(lane: Lane) -> str:
    """Name of the setting of a lane, which its seeds share; empty in a sweep over seeds alone.

    >>> setting_of(Lane("periodic-50/seed3", RunConfig()))
    'periodic-50'
    """
    return lane.name.rpartition("/")[0]


def learner_steps_of(config: RunConfig) -> int:
    """Number of learner steps of a run."""
    return total_learner_steps(config.loop, config.steps, config.num_envs)


def target_options(config: RunConfig) -> dict[str, Any]:
    """Arguments with which :func:`polyak.agents.agent.make_targets` reads the rules of a config."""
    return {
        "total_learner_steps": learner_steps_of(config),
        "environment_steps_per_learner_step": config.loop.environment_steps_per_learner_step,
    }


def _check_axes(axes: Mapping[str, Sequence[Any]]) -> None:
    for name, values in axes.items():
        if name in _NO_AXIS:
            raise ValueError(f"{name}: got {len(values)} values; it cannot be an axis: {_NO_AXIS[name]}.")
        if not values:
            raise ValueError(f"{name}: got no value for the axis, so the grid is empty; expected at least one value.")


def _check_lanes(config: RunConfig) -> None:
    """Check the fields that a lane cannot have."""
    if config.stop_at_return is not None:
        raise ValueError(
            f"stop_at_return: got {config.stop_at_return}; the lanes of a sweep end at the same step. Leave it out, "
            "and read the step from the evaluations of the records."
        )


def _compiled_part(config: RunConfig) -> str:
    """Everything of a config that is not data of a compiled program, as a text."""
    from ...agents.agent import make_targets  # imports JAX

    written = to_json(config)
    agent, loop = written["agent"], written["loop"]
    del written["seed"], loop["exploration"]["epsilon"]
    for name in config.loop.draw.schedules:
        draw = loop["draw"]
        del (draw if name in draw else draw["sampling"])[name]
    if config.maker == "none":  # a maker of one's own reads the numbers of its config
        named = make_targets(config.agent, **target_options(config))
        agent["target"] = [[name, target.module_state] for name, target in named.items()]
        del agent["average"]
        if config.agent.learning_rate.is_constant:
            del agent["learning_rate"]
    return json.dumps(written, sort_keys=True)


def _setting_names(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Name of the folder of each setting: the values of its axes, with the axis unless it is the target."""
    found: list[str] = []
    for values in settings:
        words = [
            "-".join(re.findall(r"[\w.]+", f"{name if name != 'target' else ''} {values[name]}")) for name in values
        ]
        name = plain = "--".join(words)[:150]
        number = 2
        while name in found:  # two texts that differ in signs alone
            name, number = f"{plain}-{number}", number + 1
        found.append(name)
    return found


def _text(value: Any) -> str:
    if isinstance(value, Schedule):
        return str(value)
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
