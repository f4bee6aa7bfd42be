"""Progress of a sweep."""

from polyak.experiments.reports import sweep_progress
from polyak.experiments.reports.sweep_progress import SweepProgress, best, lines
from small_sweeps import grid_of

SETTINGS = {"none": ["none/seed0", "none/seed1"], "periodic-5": ["periodic-5/seed0", "periodic-5/seed1"]}


def record(step, value, seconds=1.0):
    return {
        "step": step,
        "learner_steps": step // 4,
        "return_mean_20": value,
        "seconds": seconds,
        "steps_per_second": step / seconds,
        "compile_seconds": 0.5,
    }


def newest(step, *values):
    names = [name for lanes in SETTINGS.values() for name in lanes]
    return {name: record(step, value) for name, value in zip(names, values, strict=True)}


def test_lines_have_medians_and_count_lanes_without_a_result():
    found = lines(SETTINGS, newest(100, 1.0, 4.0, None, 3.0), {"none/seed0": {"mean": 9.0}, "none/seed1": "diverged"})
    assert found == [
        "none        return 9.0 (greedy, median of 1)  1 diverged or failed",
        "periodic-5  return 3.0 (last 20, median of 1)",
    ]
    assert best(SETTINGS, newest(100, 1.0, 4.0, None, 3.0)) == "  best periodic-5 3.0 (last 20)"
    assert best(SETTINGS, newest(100, None, None, None, None)) == ""


def test_a_line_every_few_seconds(capsys, monkeypatch):
    clock = iter([100.0, 101.0, 112.0, 113.0])
    monkeypatch.setattr(sweep_progress.time, "monotonic", lambda: next(clock))
    with SweepProgress(grid_of(seeds=2, axes={"target": ["none", "periodic:5"]}, steps=400), quiet=False) as progress:
        progress.show(newest(100, 1.0, 1.0, 2.0, 2.0), {})
        progress.show(newest(200, 1.0, 1.0, 2.0, 2.0), {})
        progress.show(newest(300, 1.0, 1.0, 2.0, 2.0), {})
        ends = {name: {"mean": 7.0} for lanes in SETTINGS.values() for name in lanes}
        progress.show(newest(400, 1.0, 1.0, 2.0, 2.0), ends)
    assert capsys.readouterr().err.splitlines() == [
        "400 / 1,600 steps of 4 lanes  800/s  2 s left  best periodic-5 2.0 (last 20)",
        "1,200 / 1,600 steps of 4 lanes  67/s  6 s left  best periodic-5 2.0 (last 20)",
        "1,600 / 1,600 steps of 4 lanes, 4 ended  best periodic-5 2.0 (last 20)",
    ]


def test_quiet_progress_has_messages_alone(capsys):
    with SweepProgress(grid_of(seeds=2), quiet=True) as progress:
        progress.show({"seed0": record(100, 1.0)}, {})
        progress.say("warning: something")
    assert capsys.readouterr().err == "warning: something\n"
