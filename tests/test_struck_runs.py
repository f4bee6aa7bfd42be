"""Runs that a signal or a full disk has struck at random points, as experiments/reproduce/faults.py has more of."""

import pathlib
import runpy

import pytest

SCRIPT = pathlib.Path(__file__).parent.parent / "experiments" / "reproduce" / "faults.py"


@pytest.mark.slow
def test_struck_and_continued_equals_never_struck():
    found = runpy.run_path(str(SCRIPT))["main"](points=6)
    assert {line["fault"] for line in found} == {"SIGKILL", "SIGTERM", "full disk"}
    assert all(line["equal"] for line in found), found
    assert sum(line["exit_statuses"][0] != 0 for line in found) >= 4, found
