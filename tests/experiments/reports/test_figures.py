"""A comparison as a figure."""

import numpy as np
import pytest

from polyak.experiments.reports.comparison import Comparison, Curve, Estimate, compare
from polyak.experiments.reports.figures import comparison_figure, draw_comparison
from written_runs import write_run, write_two_groups


@pytest.fixture
def two_groups(tmp_path):
    return write_two_groups(tmp_path / "runs")


def test_a_panel_for_each_environment_and_a_line_and_band_for_each_group(two_groups):
    write_run(two_groups / "acrobot", [-500.0, -400.0], env="Acrobot-v1", target="none")
    comparison = compare(two_groups, window=2, threshold=5.0)
    figure = draw_comparison(comparison)
    acrobot, cartpole = figure.axes
    assert (acrobot.get_title(), cartpole.get_title()) == ("Acrobot-v1", "CartPole-v1")
    assert (len(cartpole.lines), len(cartpole.collections)) == (3, 2)  # the threshold's line and one each
    assert (len(acrobot.lines), len(acrobot.collections)) == (2, 0)  # one seed has no band
    periodic = comparison.curves[-1]
    assert cartpole.lines[-1].get_ydata().tolist() == periodic.training.value.tolist()
    edges = cartpole.collections[-1].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (periodic.training.low.min(), periodic.training.high.max())
    none = [axes.lines[1].get_color() for axes in (acrobot, cartpole)]
    assert none[0] == none[1] != cartpole.lines[-1].get_color()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "target=none (1 to 2 seeds)",
        "target=periodic:10 (3 seeds)",
    ]
    assert "95 % bootstrap interval" in legend.get_title().get_text()


def test_evaluations_within_the_runs_are_points_where_every_run_of_a_group_has_one(tmp_path):
    write_run(tmp_path / "0", [1.0, 2.0], greedy=9.0, evaluations=(3.0, 5.0))
    write_run(tmp_path / "1", [1.0, 2.0], greedy=9.0, evaluations=(4.0, 8.0), seed=1)
    write_run(tmp_path / "2", [1.0, 2.0], greedy=9.0, evaluations=(None, 4.0), seed=2)
    write_run(tmp_path / "3", [1.0, 2.0], greedy=9.0, target="none")
    comparison = compare(tmp_path)
    evaluated, never = sorted(comparison.curves, key=lambda curve: -curve.seeds)
    assert evaluated.evaluated_at.tolist() == [20.0]
    assert evaluated.greedy.value.tolist() == [(5 + 8 + 4) / 3]
    assert (len(never.evaluated_at), never.greedy.value.shape) == (0, (0,))
    figure = draw_comparison(comparison)
    [points] = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert (points.get_xdata().tolist(), points.get_ydata().tolist()) == ([20.0], [(5 + 8 + 4) / 3])
    assert "Points: evaluations, greedy." in figure.legends[0].get_title().get_text()


def test_many_groups_are_told_apart_and_long_labels_fit():
    steps, flat = np.array([0.0, 1.0]), np.zeros(2)
    groups = [f"target=incremental:0.00{number}, hidden_sizes=120 84, learning_rate=0.0003" for number in range(9)]
    training, greedy = Estimate(flat, flat, flat), Estimate(*np.empty((3, 0)))
    curves = [Curve(group, "CartPole-v1", 3, steps, training, steps[:0], greedy) for group in groups]
    figure = draw_comparison(Comparison([], curves, [], None, 100))
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 9
    figure.draw_without_rendering()
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert (legend.x0 >= 0, legend.x1 <= whole.x1, legend.y0 >= 0) == (True, True, True)
    assert figure.axes[0].get_window_extent().height > 1.2 * figure.dpi  # and the panel keeps its height


def test_the_ending_says_the_format_and_letters_stay_letters(two_groups, tmp_path):
    comparison = compare(two_groups)
    for ending, begins in {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}.items():
        comparison_figure(comparison, tmp_path / f"figure.{ending}")
        assert (tmp_path / f"figure.{ending}").read_bytes().startswith(begins)
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf


def test_what_cannot_be_drawn_is_an_error(two_groups, tmp_path):
    comparison = compare(two_groups)
    with pytest.raises(ValueError, match=r"figure: got .*figure.jpg; expected a file that ends in .png, .pdf or"):
        comparison_figure(comparison, tmp_path / "figure.jpg")
    with pytest.raises(ValueError, match=r"figure: .* cannot be written \(No such file or directory"):
        comparison_figure(comparison, tmp_path / "nowhere" / "figure.png")
    with pytest.raises(ValueError, match="no run has a curve yet"):
        comparison_figure(comparison._replace(curves=[]), tmp_path / "figure.png")
