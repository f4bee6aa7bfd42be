"""A comparison as a figure."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from polyak.experiments.reports.comparison import Comparison, Curve, compare
from polyak.experiments.reports.figures import (
    comparison_figure,
    curve_caption,
    draw_comparison,
    draw_profiles,
    profile_caption,
    profile_figure,
)
from polyak.experiments.reports.looks import COLORS, group_looks
from polyak.experiments.reports.statistics import Estimate
from written_runs import write_run, write_two_groups


@pytest.fixture
def two_groups(tmp_path):
    return write_two_groups(tmp_path / "runs")


def lines_of(axes):
    """Lines of the groups, without the edges of bands and the threshold."""
    return [line for line in axes.lines if line.get_linewidth() == 1.6]


def test_a_panel_for_each_environment_and_a_line_and_band_for_each_group(two_groups):
    write_run(two_groups / "acrobot", [-500.0, -400.0], env="Acrobot-v1", target="none")
    comparison = compare(two_groups, window=2, threshold=5.0)
    figure = draw_comparison(comparison)
    acrobot, cartpole = figure.axes
    assert (acrobot.get_title(), cartpole.get_title()) == ("Acrobot-v1", "CartPole-v1")
    assert (len(lines_of(cartpole)), len(cartpole.collections)) == (2, 2)
    assert (len(lines_of(acrobot)), len(acrobot.collections)) == (1, 0)  # one seed has no band
    assert len(cartpole.lines) == 1 + 2 + 2 * 2  # the threshold, and two edges of a band
    periodic = comparison.curves[-1]
    assert lines_of(cartpole)[-1].get_ydata().tolist() == periodic.training.value.tolist()
    assert [line.get_ydata().tolist() for line in cartpole.lines[-2:]] == [list(edge) for edge in periodic.training[1:]]
    assert max(band.get_zorder() for band in cartpole.collections) < min(
        line.get_zorder() for line in lines_of(cartpole)
    )
    edges = cartpole.collections[-1].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (periodic.training.low.min(), periodic.training.high.max())
    none = [lines_of(axes)[0].get_color() for axes in (acrobot, cartpole)]
    assert none[0] == none[1] != lines_of(cartpole)[-1].get_color()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "target=none",
        "target=periodic:10",
    ]
    assert legend.get_title().get_text() == ""
    assert curve_caption(comparison) == [
        "Lines: interquartile mean over seeds of the mean of the last 2 training episodes.",
        "Bands: 95 % stratified bootstrap interval.",
        "Dotted: a return of 5.",
        "Seeds: 1 to 2 of target=none; 3 of target=periodic:10.",
    ]


def test_colors_follow_the_order_given_even_where_a_group_has_no_curve(two_groups, tmp_path):
    first = write_run(tmp_path / "first", [], target="none", n_steps=2)
    folders = (first, two_groups / "periodic-10-0", two_groups / "none-0")
    comparison = compare(*folders)
    drawn = {line.get_color() for line in lines_of(draw_comparison(comparison).axes[0])}
    assert drawn == {COLORS[1], COLORS[2]}
    profile = draw_profiles(comparison)
    assert [line.get_color() for line in lines_of(profile.axes[0])] == [COLORS[1], COLORS[2]]
    assert [text.get_text() for text in profile.legends[0].get_texts()] == [
        "target=periodic:10, n_steps=10",
        "target=none, n_steps=10",
    ]


def test_rules_are_sorted_and_have_the_colors_of_their_families(tmp_path):
    rules = ["incremental:0.001", "frozen", "periodic:500", "none", "periodic:50", "incremental:0.1@4"]
    for number, rule in enumerate(rules):
        write_run(tmp_path / str(number), [1.0, 2.0], target=rule)
    figure = draw_comparison(comparison := compare(tmp_path))
    assert len(figure.axes) == 1
    names = [text.get_text().removeprefix("target=") for text in figure.legends[0].get_texts()]
    assert names == ["none", "periodic:50", "periodic:500", "incremental:0.001", "incremental:0.1@4", "frozen"]
    looks = group_looks(comparison)
    assert {look["color"] for look in looks.values()} == {line.get_color() for line in lines_of(figure.axes[0])}
    assert [looks[f"target={rule}"]["color"] for rule in ("none", "incremental:0.001", "incremental:0.1@4")] == [
        "#000000",
        COLORS[1],
        COLORS[2],
    ]
    light, dark = (np.array(to_rgb(looks[f"target=periodic:{period}"]["color"])) for period in (50, 500))
    assert (light > dark).all()  # both blue
    assert light.argmax() == dark.argmax() == 2
    without = compare(*(tmp_path / str(number) for number in (4, 3)))
    assert group_looks(without)["target=none"] == looks["target=none"]


def test_many_rules_have_a_column_for_each_family_and_the_ends_in_each(tmp_path):
    rules = ["none", "frozen", *(f"periodic:{10 * k}" for k in (1, 2, 3)), *(f"incremental:0.0{k}" for k in (1, 2, 3))]
    for number, rule in enumerate(rules):
        for environment in ("CartPole-v1", "Acrobot-v1"):
            write_run(tmp_path / f"{environment}{number}", [float(number)] * 3, target=rule, env=environment)
    figure = draw_comparison(compare(tmp_path, window=1))
    titles = [f"{name}, {kind} targets" for name in ("Acrobot-v1", "CartPole-v1") for kind in ("hard", "soft")]
    assert [axes.get_title() for axes in figure.axes] == titles
    levels = [{line.get_ydata()[-1] for line in lines_of(axes)} for axes in figure.axes]
    assert levels == [{0.0, 1.0, 2.0, 3.0, 4.0}, {0.0, 1.0, 5.0, 6.0, 7.0}] * 2
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_the_caption_names_groups_with_another_number_of_seeds(tmp_path):
    for number, seed in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]:
        write_run(tmp_path / f"{number}{seed}", [1.0], target="none", n_steps=number + 1, seed=seed)
    assert curve_caption(compare(tmp_path))[-1] == "Seeds: 2 for each line, but 1 of n_steps=3."


def test_profiles_have_a_row_for_each_environment_and_a_column_for_each_score(two_groups):
    for seed, target in enumerate(("none", "none", "periodic:10", "periodic:10")):
        write_run(two_groups / f"a{seed}", [-500.0 + seed], greedy=-400.0, env="Acrobot-v1", target=target, seed=seed)
    comparison = compare(two_groups, window=2)
    figure = draw_profiles(comparison)
    assert [axes.get_title() for axes in figure.axes] == ["Acrobot-v1"] * 2 + ["CartPole-v1"] * 2 + ["all"] * 1
    assert figure.axes[3].get_xlabel() == "greedy return τ"
    assert figure.axes[4].get_xlabel() == "scaled training return τ"  # all greedy returns of Acrobot-v1 are equal
    [none, periodic] = lines_of(figure.axes[3])
    assert (none.get_drawstyle(), none.get_xdata().tolist()) == ("steps-post", [15.0, 20.0, 40.0, 60.0, 80.0, 120.0])
    assert periodic.get_ydata().tolist() == [1.0, 1.0, 2 / 3, 1 / 3, 0.0, 0.0]
    assert len(figure.axes[3].collections) == 2
    assert profile_caption(comparison)[1] == "Bands: pointwise 95 % stratified bootstrap interval."
    assert profile_caption(comparison)[-1] == "Seeds: 2 of target=none; 2 to 3 of target=periodic:10."


def test_a_figure_has_the_size_asked_for(two_groups, tmp_path):
    comparison = compare(two_groups)
    for figure in (comparison.figure(size=(6.0, 4.0)), comparison.profile_figure(size=(6.0, 4.0))):
        assert figure.get_size_inches().tolist() == [6.0, 4.0]
        assert figure.axes[0].xaxis.label.get_size() == 9.0
    for size in ((0.0, 4.0), (6.0, 51.0), (6.0, float("nan")), (6.0,)):
        with pytest.raises(ValueError, match=r"size: got .*; expected a width and a height in inches, in \(0, 50\]"):
            comparison.figure(size=size)
    with pytest.raises(ValueError, match=r"size: got 1 by 0\.5 inches, which is too small for the panels"):
        comparison_figure(comparison, tmp_path / "figure.png", size=(1.0, 0.5))


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
    assert "Points: interquartile mean of evaluations, greedy." in curve_caption(comparison)


def test_many_groups_are_told_apart_and_long_labels_fit():
    steps, flat = np.array([0.0, 1.0]), np.zeros(2)
    groups = [f"target=incremental:0.00{number}, hidden_sizes=120 84, learning_rate=0.0003" for number in range(9)]
    training, greedy = Estimate(flat, flat, flat), Estimate(*np.empty((3, 0)))
    curves = [Curve(group, "CartPole-v1", 3, steps, training, steps[:0], greedy) for group in groups]
    figure = draw_comparison(Comparison([], curves, [], None, 100, {group: {} for group in groups}, {}))
    looks = {(line.get_color(), line.get_linestyle()) for line in lines_of(figure.axes[0])}
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
    with pytest.raises(ValueError, match="figure: no run has a curve yet"):
        comparison_figure(comparison._replace(curves=[]), tmp_path / "figure.png")
    with pytest.raises(ValueError, match="profile: no run has ended yet"):
        profile_figure(comparison._replace(scores={}), tmp_path / "figure.png")


def test_a_name_that_is_no_mathematics_is_an_error_of_the_figure(two_groups, tmp_path):
    comparison = compare(two_groups, window=2, labels={"none": "costs $x^$"})
    with pytest.raises(ValueError, match=r"^figure: matplotlib reads .* as mathematics.*Write \\\$ for a dollar sign"):
        comparison_figure(comparison, tmp_path / "figure.png")
    comparison = compare(two_groups, window=2, labels={"none": r"costs \$x^\$", "periodic:10": r"$\tau = 1$"})
    comparison_figure(comparison, tmp_path / "figure.png")
