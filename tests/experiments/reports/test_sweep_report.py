"""Report of a sweep: the files, the lines, and lanes that have diverged."""

import json

import pytest

from polyak.experiments import cli
from polyak.experiments.reports import sweep_report
from polyak.experiments.reports.comparison import compare
from polyak.experiments.reports.found_runs import run_folders
from polyak.experiments.reports.heat_map import heat_map_caption
from polyak.experiments.reports.sweep_figures import final_score_caption
from written_runs import write_sweep

TARGETS = [{"target": rule} for rule in ("periodic:500", "none", "periodic:50")]


def figures(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_the_table_the_captions_and_the_figures_of_one_axis(tmp_path):
    folder = write_sweep(tmp_path / "sweep", TARGETS, [[5.0, 6.0], [7.0, 8.0], [1.0, 2.0]])
    lines = sweep_report.write(folder)
    assert (folder / "comparison.txt").read_text() == "\n".join(lines) + "\n"
    assert [line.split()[0] for line in lines[1:4]] == ["target=periodic:500", "target=none", "target=periodic:50"]
    assert figures(folder) == ["comparison.png", "final_score.png"]
    assert [line for line in lines if line.startswith("figure")] == [
        f"figure    {folder / name}" for name in figures(folder)
    ]
    assert (folder / "comparison.csv").read_text().startswith("group,environment,seeds,")
    assert all(len(line) <= 100 for line in lines if not line.startswith(("figure", "note")))


def test_two_axes_have_a_heat_map(tmp_path):
    settings = [{**target, "n_steps": n} for target in TARGETS for n in (1, 3)]
    folder = write_sweep(tmp_path / "sweep", settings, [[1.0]] * 6)
    sweep_report.write(folder)
    assert figures(folder) == ["comparison.png", "final_score.png", "heat_map.png"]


def test_many_settings_have_the_curve_of_the_best_for_each_rule(tmp_path):
    settings = [{**target, "n_steps": n} for target in TARGETS for n in range(1, 7)]
    folder = write_sweep(tmp_path / "sweep", settings, [[float(number)] for number in range(18)])
    [best] = [line for line in sweep_report.write(folder) if line.startswith("The best group")]
    assert best == "The best group for each target: the highest greedy return over n_steps."


def test_names_alone_have_curves_and_no_score_over_numbers(tmp_path):
    folder = write_sweep(tmp_path / "sweep", [{"error": "huber"}, {"error": "squared"}], [[1.0]] * 2)
    sweep_report.write(folder)
    assert figures(folder) == ["comparison.png"]


def test_a_diverged_lane_is_in_the_notes_and_in_neither_scores_nor_curves(tmp_path):
    gone = ["0/seed1", *(f"1/seed{seed}" for seed in range(6))]
    folder = write_sweep(tmp_path / "sweep", TARGETS, [[5.0, 6.0], [7.0] * 6, [1.0, 2.0]], diverged=gone)
    lines = sweep_report.write(folder)
    assert lines[1].split()[2:5] == ["1", "(+", "1"]
    notes = [line.removeprefix("note      ") for line in lines if line.startswith("note")]
    assert notes[0] == (
        f"{folder / '0' / 'seed1'} has diverged after step 40 of 600 (loss: got nan at learner step 7): it is neither "
        "in the table nor in the curves."
    )
    assert notes[5:] == ["2 other runs have diverged; the table has their numbers by group."]
    comparison = compare(folder)
    assert [(row.seeds, row.diverged, row.unfinished) for row in comparison.rows] == [(1, 1, 0), (0, 6, 0), (2, 0, 0)]
    assert [(curve.group, curve.seeds) for curve in comparison.curves] == [
        ("target=periodic:500", 1),
        ("target=periodic:50", 2),
    ]


def test_a_sweep_in_which_all_have_diverged_has_a_table_without_figures(tmp_path):
    gone = [f"{number}/seed0" for number in range(3)]
    folder = write_sweep(tmp_path / "sweep", TARGETS, [[1.0]] * 3, diverged=gone)
    lines = sweep_report.write(folder)
    assert figures(folder) == []
    assert "0 (+ 1 diverged)" in lines[1]


def test_a_lane_that_was_copied_elsewhere_is_unfinished(tmp_path):
    folder = write_sweep(tmp_path / "sweep", TARGETS, [[1.0]] * 3, diverged=["0/seed0"])
    (folder / "0" / "seed0").rename(tmp_path / "lane")
    assert [(row.unfinished, row.diverged) for row in compare(tmp_path / "lane").rows] == [(1, 0)]


def test_lanes_are_in_the_order_of_the_grid_and_other_runs_by_path_with_numbers_by_value(tmp_path):
    folder = write_sweep(tmp_path / "sweep", TARGETS, [[1.0] * 11, [1.0], [1.0]])
    written = json.loads((folder / "sweep.json").read_text())
    order = ["2/seed0", *(f"0/seed{seed}" for seed in range(11)), "1/seed0"]
    (folder / "sweep.json").write_text(json.dumps({**written, "lanes": order}))
    assert [run.relative_to(folder).as_posix() for run in run_folders([folder])] == order
    (folder / "sweep.json").unlink()
    assert [run.relative_to(folder).as_posix() for run in run_folders([folder])] == [*order[1:], order[0]]


def test_the_figures_from_the_command_line(tmp_path, capsys):
    settings = [{**target, "n_steps": n} for target in TARGETS for n in (1, 3)]
    folder = write_sweep(tmp_path / "sweep", settings, [[1.0]] * 6)
    paths = [tmp_path / "score.png", tmp_path / "map.svg"]
    assert cli.run(["compare", str(folder), "--final-score", str(paths[0]), "--heat-map", str(paths[1])]) == 0
    assert all(path.is_file() for path in paths)
    said = capsys.readouterr()
    comparison = compare(folder)
    assert said.out == comparison.table()
    assert said.err.splitlines() == [
        f"figure    {paths[0]}",
        *final_score_caption(comparison),
        f"figure    {paths[1]}",
        *heat_map_caption(comparison),
    ]
    assert cli.run(["compare", str(folder / "0"), "--heat-map", str(paths[1])]) == 2
    assert capsys.readouterr().err.startswith("polyak: heat_map: the groups differ in 0 fields (none)")


def test_bad_files_are_errors_with_their_path(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no run found"):
        sweep_report.write(tmp_path / "nowhere")
    folder = write_sweep(tmp_path / "sweep", TARGETS, [[1.0]] * 3)
    (folder / "sweep.json").write_text(json.dumps({"lanes": "all"}))
    with pytest.raises(ValueError, match=r'sweep.json: got no "lanes"; was the file changed by hand\?'):
        sweep_report.write(folder)
    (folder / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep.json: got no JSON"):
        sweep_report.write(folder)
