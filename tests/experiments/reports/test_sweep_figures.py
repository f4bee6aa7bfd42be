"""Figures of a sweep: the numbers in them are those of the comparison."""

import numpy as np
import pytest

from polyak.experiments.reports.comparison import compare
from polyak.experiments.reports.heat_map import draw_heat_map, heat_map_caption, heat_map_figure
from polyak.experiments.reports.looks import COLORS
from polyak.experiments.reports.sweep_figures import draw_final_score, final_score_caption, final_score_figure
from written_runs import write_sweep

RULES = [
    "frozen",
    "periodic:1000",
    "periodic:10",
    "periodic:100",
    "periodic:100 q/torso=none",
    "incremental:0.1",
    "incremental:0.001",
    "incremental:0.1@4",
    "none",
]


def scores(count, seeds=3):
    return [[10.0 * number + seed for seed in range(seeds)] for number in range(1, count + 1)]


@pytest.fixture
def rules(tmp_path):
    return compare(write_sweep(tmp_path / "sweep", [{"target": rule} for rule in RULES], scores(len(RULES))))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def points(axes):
    """Points of each line with markers: their numbers, without the shift aside, and their scores."""
    lines = [line for line in axes.lines if line.get_marker() == "o"]
    return [(line.get_xdata().tolist(), line.get_ydata().tolist()) for line in lines]


def intervals(axes):
    return [path.vertices[:, 1].tolist() for found in axes.collections for path in found.get_paths()]


class TestFinalScore:
    def test_a_panel_for_each_family_with_one_vertical_axis(self, rules):
        hard, soft = (figure := draw_final_score(rules)).axes
        assert [axes.get_title() for axes in (hard, soft)] == ["CartPole-v1, hard targets", "CartPole-v1, soft targets"]
        assert (hard.get_xlabel(), soft.get_xlabel()) == ("period (learner steps)", "step size")
        assert (hard.get_xscale(), soft.get_xscale()) == ("log", "log")
        assert hard.get_ylim() == soft.get_ylim()
        assert hard.get_ylabel() == "greedy return"
        assert [text.get_text() for text in hard.get_xticklabels()] == ["10", "100", "1000"]
        assert legend(figure) == [
            "none",
            "frozen",
            "periodic:K",
            "periodic:K q/torso=none",
            "incremental:T",
            "incremental:T@4",
        ]

    def test_points_and_intervals_are_those_of_the_table(self, rules):
        hard, soft = draw_final_score(rules).axes
        (x, y), (part_x, part_y) = points(hard)
        assert np.allclose(x, [10, 100, 1000], rtol=0.1)
        assert x[0] < 10  # moved aside
        assert part_x[0] > 100
        assert y == [31.0, 41.0, 21.0]  # of seeds 30, 31, 32 and so on
        assert part_y == [51.0]
        assert [y for _, y in points(soft)] == [[71.0, 61.0], [81.0]]
        assert intervals(hard)[:3] == [[30.0, 32.0], [40.0, 42.0], [20.0, 22.0]]

    def test_rules_without_a_number_are_horizontal_lines_with_bands(self, rules):
        for axes in draw_final_score(rules).axes:
            levels = {line.get_color(): line.get_ydata() for line in axes.lines if line.get_marker() != "o"}
            assert levels == {"#000000": [91.0, 91.0], "0.55": [11.0, 11.0]}
            spans = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in axes.patches]
            assert spans == [(90.0, 92.0), (10.0, 12.0)]

    def test_one_seed_has_no_interval(self, tmp_path):
        settings = [{"target": rule} for rule in ("none", "periodic:10", "periodic:100")]
        [axes] = draw_final_score(compare(write_sweep(tmp_path / "sweep", settings, scores(3, seeds=1)))).axes
        assert points(axes) == [([10.0, 100.0], [20.0, 30.0])]
        assert (intervals(axes), list(axes.patches)) == ([], [])

    def test_rules_without_numbers_alone_are_one_panel(self, tmp_path):
        settings = [{"target": rule} for rule in ("none", "frozen")]
        figure = draw_final_score(compare(write_sweep(tmp_path / "sweep", settings, scores(2))))
        [axes] = figure.axes
        assert (len(axes.get_xticks()), axes.get_title(), legend(figure)) == (0, "CartPole-v1", ["none", "frozen"])

    def test_over_a_number_each_rule_is_a_line(self, tmp_path):
        settings = [{"target": rule, "learning_rate": x} for x in (1e-2, 1e-4) for rule in ("incremental:0.1", "none")]
        figure = draw_final_score(compare(write_sweep(tmp_path / "sweep", settings, scores(4))))
        [axes] = figure.axes
        assert (axes.get_xlabel(), axes.get_xscale(), legend(figure)) == (
            "learning_rate",
            "log",
            ["none", "incremental:0.1"],
        )
        assert [y for _, y in points(axes)] == [[41.0, 21.0], [31.0, 11.0]]
        assert [line.get_color() for line in axes.lines] == ["#000000", COLORS[1]]

    def test_a_number_of_a_small_range_is_linear_and_one_line_has_no_legend(self, tmp_path):
        settings = [{"discount": x} for x in (0.99, 0.95, 0.9)]
        figure = draw_final_score(compare(write_sweep(tmp_path / "sweep", settings, scores(3))))
        [axes] = figure.axes
        assert (axes.get_xscale(), figure.legends) == ("linear", [])
        assert points(axes) == [([0.9, 0.95, 0.99], [31.0, 21.0, 11.0])]

    def test_names_are_lines_of_their_own(self, tmp_path):
        settings = [
            {"target": rule, "error": error} for rule in ("none", "periodic:10") for error in ("squared", "huber")
        ]
        figure = draw_final_score(compare(write_sweep(tmp_path / "sweep", settings, scores(4))))
        assert legend(figure) == [
            "none, error=squared",
            "none, error=huber",
            "error=squared",
            "error=huber",
        ]
        [axes] = figure.axes
        assert [(line.get_color(), line.get_linestyle()) for line in axes.lines] == [
            (COLORS[0], "--"),
            (COLORS[1], "--"),
            (COLORS[0], "-"),
            (COLORS[1], "-"),
        ]

    def test_many_rules_over_a_number_have_a_column_for_each_family(self, tmp_path):
        rules = ["none", *(f"periodic:{10 * k}" for k in (1, 2, 3, 4)), *(f"incremental:0.0{k}" for k in (1, 2, 3))]
        settings = [{"target": rule, "n_steps": n} for rule in rules for n in (1, 2)]
        figure = draw_final_score(compare(write_sweep(tmp_path / "sweep", settings, scores(16))))
        hard, soft = figure.axes
        assert (hard.get_title(), soft.get_title()) == ("CartPole-v1, hard targets", "CartPole-v1, soft targets")
        assert (hard.get_xlabel(), soft.get_xlabel()) == ("n_steps", "n_steps")
        assert hard.get_ylim() == soft.get_ylim()
        assert [y for _, y in points(hard)] == [[20.0 * k + 11, 20.0 * k + 21] for k in (0, 1, 2, 3, 4)]
        assert [y for _, y in points(soft)] == [[20.0 * k + 11, 20.0 * k + 21] for k in (0, 7, 6, 5)]

    def test_several_numbers_are_reduced_to_the_best(self, tmp_path):
        settings = [{"n_steps": n, "discount": d} for n in (1, 2, 3) for d in (0.9, 0.99)]
        comparison = compare(write_sweep(tmp_path / "sweep", settings, scores(6)))
        assert points(draw_final_score(comparison).axes[0]) == [([1.0, 2.0, 3.0], [21.0, 41.0, 61.0])]
        assert final_score_caption(comparison)[-1] == (
            "Best over discount by the interquartile mean of the same seeds, so the scores are biased upwards, more "
            "for more values."
        )

    def test_a_row_for_each_environment(self, tmp_path):
        settings = [{"target": rule} for rule in ("none", "periodic:10", "incremental:0.1")]
        for number, environment in enumerate(("CartPole-v1", "Acrobot-v1")):
            write_sweep(tmp_path / str(number), settings, scores(3), env=environment)
        axes = draw_final_score(compare(tmp_path)).axes
        assert [one.get_title().partition(",")[0] for one in axes] == ["CartPole-v1"] * 2 + ["Acrobot-v1"] * 2

    def test_a_diverged_lane_is_left_out_and_in_the_caption(self, tmp_path):
        settings = [{"target": rule} for rule in ("none", "periodic:10", "periodic:100")]
        gone = ["1/seed0", "2/seed0", "2/seed1", "2/seed2"]
        comparison = compare(write_sweep(tmp_path / "sweep", settings, scores(3), diverged=gone))
        assert points(draw_final_score(comparison).axes[0]) == [([10.0], [21.5])]
        assert final_score_caption(comparison)[-1] == (
            "Scores are over the seeds that did not diverge. Diverged: 1 of target=periodic:10; "
            "3 of target=periodic:100."
        )


class TestHeatMap:
    def test_cells_are_the_numbers_of_the_table(self, tmp_path):
        settings = [{"target": rule, "learning_rate": x} for x in (1e-2, 1e-4) for rule in ("incremental:0.1", "none")]
        comparison = compare(write_sweep(tmp_path / "sweep", settings, scores(4), diverged=["1/seed0", "1/seed1"]))
        axes, bar = draw_heat_map(comparison).axes
        assert axes.images[0].get_array().tolist() == [[41.0, 22.0], [31.0, 11.0]]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0.0001", "0.01"]
        assert [text.get_text() for text in axes.get_yticklabels()] == ["none", "incremental:0.1"]
        assert (axes.get_xlabel(), axes.get_ylabel(), bar.get_ylabel()) == ("learning_rate", "target", "greedy return")
        assert {text.get_position(): text.get_text() for text in axes.texts} == {
            (0, 0): "41\n[40, 42]",
            (1, 0): "22\n2 diverged",
            (0, 1): "31\n[30, 32]",
            (1, 1): "11\n[10, 12]",
        }
        assert heat_map_caption(comparison)[-1].endswith("Diverged: 2 of learning_rate=0.01, target=none.")

    def test_text_is_light_on_dark_cells(self, tmp_path):
        settings = [{"n_steps": n, "discount": d} for n in (1, 2) for d in (0.9, 0.99)]
        axes, _ = draw_heat_map(compare(write_sweep(tmp_path / "sweep", settings, scores(4)))).axes
        colors = {text.get_text().partition("\n")[0]: text.get_color() for text in axes.texts}
        assert (colors["11"], colors["41"]) == ("white", "black")

    def test_more_axes_are_reduced_to_the_best_and_lost_cells_are_empty(self, tmp_path):
        settings = [
            {"target": rule, "n_steps": n, "discount": d}
            for rule in ("none", "frozen")
            for n in (1, 2, 3)
            for d in (0.9, 0.99)
        ]
        gone = [f"{number}/seed{seed}" for number in (0, 1) for seed in range(3)]
        comparison = compare(write_sweep(tmp_path / "sweep", settings, scores(12), diverged=gone))
        axes, _ = draw_heat_map(comparison).axes
        shown = axes.images[0].get_array()
        assert shown.mask.tolist() == [[True, False, False], [False] * 3]
        assert shown.compressed().tolist() == [41.0, 61.0, 81.0, 101.0, 121.0]
        assert {text.get_position(): text.get_text() for text in axes.texts}[0, 0] == "-\n3 diverged"
        assert "Best over discount" in heat_map_caption(comparison)[1]


def test_what_cannot_be_drawn_is_an_error(rules, tmp_path):
    with pytest.raises(ValueError, match=r"figure: got .*score.jpg; expected a file that ends in .png, .pdf or .svg"):
        final_score_figure(rules, tmp_path / "score.jpg")
    with pytest.raises(ValueError, match="heat_map: the groups differ in 1 fields \\(target\\); expected two or more"):
        heat_map_figure(rules, tmp_path / "map.png")
    names = compare(write_sweep(tmp_path / "names", [{"error": "huber"}, {"error": "squared"}], scores(2)))
    with pytest.raises(ValueError, match="final_score: the groups differ in no target rule and no number"):
        final_score_figure(names, tmp_path / "score.png")
    begun = rules._replace(rows=[row._replace(seeds=0) for row in rules.rows])
    with pytest.raises(ValueError, match="final_score: no run has ended yet"):
        final_score_figure(begun, tmp_path / "score.png")
    with pytest.raises(ValueError, match="heat_map: no run has ended yet"):
        heat_map_figure(begun, tmp_path / "map.png")
    with pytest.raises(ValueError, match=r"size: got .* expected a width and a height"):
        rules.final_score_figure(size=(0.0, 1.0))
    final_score_figure(rules, tmp_path / "score.pdf", size=(6.0, 4.0))
    assert (tmp_path / "score.pdf").read_bytes().startswith(b"%PDF")
