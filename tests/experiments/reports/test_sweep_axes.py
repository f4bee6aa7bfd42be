"""Axes of a comparison: their kinds, the order of their values, the places of rules, and the best groups."""

import math

import pytest

from polyak.experiments.reports.comparison import compare
from polyak.experiments.reports.sweep_axes import (
    axes_of,
    best_comparison,
    best_groups,
    map_axes,
    place_of,
    score_axis,
    text_of,
)
from written_runs import write_run, write_sweep


@pytest.mark.parametrize(
    ("rule", "family", "number", "pattern"),
    [
        ("none", "none", math.nan, "none"),
        ("frozen", "frozen", math.nan, "frozen"),
        ("periodic:500", "hard", 500, "periodic:K"),
        ("q=periodic:500", "hard", 500, "periodic:K"),
        ("periodic:10000env", "hard env", 10_000, "periodic:Kenv"),
        ("incremental:0.005", "soft", 0.005, "incremental:T"),
        ("incremental:0.01@4", "soft", 0.01, "incremental:T@4"),
        ("incremental:cosine(0.004)", "soft", 0.004, "incremental:cosine(T)"),
        ("incremental:cosine(0.004,200)", "soft", 0.004, "incremental:cosine(T,200)"),
        ("periodic:500 q/torso=none", "hard", 500, "periodic:K q/torso=none"),
        ("periodic:500 /torso=none", "hard", 500, "periodic:K q/torso=none"),
        ("periodic:50 encoder=incremental:0.005", "hard", 50, "periodic:K encoder=incremental:0.005"),
        ("none q/torso=frozen", "none", math.nan, "none q/torso=frozen"),
        ("sometimes", "other", math.nan, "sometimes"),
    ],
)
def test_a_rule_has_a_family_a_number_and_a_pattern(rule, family, number, pattern):
    place = place_of(rule)
    assert (place.family, place.pattern) == (family, pattern)
    assert place.number == pytest.approx(number, nan_ok=True)


def test_rules_are_sorted_from_fast_to_slow_numbers_ascending_and_names_as_they_come(tmp_path):
    rules = ["frozen", "periodic:1000", "incremental:0.001", "periodic:50", "incremental:0.1", "none"]
    changed = [{"learning_rate": 1e-3, "error": "squared"}, {"learning_rate": 1e-4, "error": "huber"}]
    settings = [{"target": rule, **fields} for rule in rules for fields in changed]
    target, *others = axes_of(compare(write_sweep(tmp_path / "sweep", settings, [[1.0]] * 12)))
    assert (target.field, target.kind) == ("target", "rule")
    assert target.values == ("none", "periodic:50", "periodic:1000", "incremental:0.1", "incremental:0.001", "frozen")
    found = {axis.field: (axis.kind, axis.values) for axis in others}
    assert found == {"error": ("name", ("squared", "huber")), "learning_rate": ("number", (1e-4, 1e-3))}
    assert [text_of(axis, axis.values[0]) for axis in (target, *others)] == [
        "none",
        "error=squared",
        "learning_rate=0.0001",
    ]


def test_schedules_that_change_are_names_and_agents_have_their_own_rules(tmp_path):
    write_run(tmp_path / "a", [1.0], agent="dqn", epsilon="linear(1,0.1,50%)")
    write_run(tmp_path / "b", [1.0], agent="dqn", epsilon=0.1)
    write_run(tmp_path / "c", [1.0], agent="c51", target="none", epsilon=0.1)
    comparison = compare(tmp_path)
    kinds = {axis.field: (axis.kind, axis.values) for axis in axes_of(comparison)}
    assert kinds["agent"] == ("name", ("dqn", "c51"))
    assert kinds["epsilon"] == ("name", ("linear(1,0.1,50%)", 0.1))
    assert kinds["target"] == ("rule", ("none", "periodic:200"))


def test_fields_of_a_part_follow_from_the_kind_of_the_part(tmp_path):
    settings = [{"head": "scalar"}, {"head": "categorical"}]
    comparison = compare(write_sweep(tmp_path / "sweep", settings, [[1.0]] * 2))
    assert list(comparison.scores) == ["head=scalar", "head=categorical"]
    settings = [{"head": "categorical", "num_atoms": 21}, {"head": "scalar"}, {"head": "categorical", "num_atoms": 51}]
    comparison = compare(write_sweep(tmp_path / "other", settings, [[1.0]] * 3))
    assert list(comparison.scores) == [
        "head=categorical, num_atoms=21",
        "head=scalar",
        "head=categorical, num_atoms=51",
    ]


def test_the_best_group_is_that_of_the_highest_interquartile_mean_in_its_environment(tmp_path):
    settings = [{"target": rule, "n_steps": n} for rule in ("none", "periodic:50") for n in (1, 3)]
    write_sweep(tmp_path / "cart", settings, [[1.0, 3.0], [4.0, 6.0], [9.0, 9.0], [8.0, 8.5]])
    write_sweep(tmp_path / "acro", settings, [[-1.0], [-5.0], [-9.0], [-8.0]], env="Acrobot-v1", diverged=["2/seed0"])
    comparison = compare(tmp_path)
    target, steps = axes_of(comparison)
    best = {point: row.group for point, row in best_groups(comparison, [target], "CartPole-v1").items()}
    assert best == {("none",): "target=none, n_steps=3", ("periodic:50",): "target=periodic:50, n_steps=1"}
    best = {point: row.group for point, row in best_groups(comparison, [target], "Acrobot-v1").items()}
    assert best == {("none",): "target=none, n_steps=1", ("periodic:50",): "target=periodic:50, n_steps=3"}
    assert len(best_groups(comparison, [target, steps], "CartPole-v1")) == 4
    kept = best_comparison(compare(tmp_path / "cart"), target)
    assert list(kept.scores) == [row.group for row in kept.rows] == [curve.group for curve in kept.curves]
    assert list(kept.settings) == ["target=none, n_steps=3", "target=periodic:50, n_steps=1"]


def test_the_axis_of_a_figure_is_the_number_with_the_most_values(tmp_path):
    settings = [{"target": "none", "n_steps": n, "discount": d} for n in (1, 2, 3) for d in (0.9, 0.99)]
    settings += [{**setting, "target": "periodic:50"} for setting in settings]
    axes = axes_of(compare(write_sweep(tmp_path / "sweep", settings, [[1.0]] * 12)))
    assert score_axis(axes).field == "n_steps"
    assert [axis.field for axis in map_axes(axes)] == ["target", "n_steps"]
    assert score_axis(axes[:1]).field == "target"
    assert score_axis([]) is None
