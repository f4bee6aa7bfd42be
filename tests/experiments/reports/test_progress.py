"""Progress of a run: the panel on a terminal and in a notebook, plain lines, and streams that cannot be written to."""

import builtins
import io
import re
import sys
import types

import pytest

from panel_records import PRETRAINING, PROBES, RESOLVED, record_at
from polyak.experiments.reports import progress as progress_module
from polyak.experiments.reports.progress import Progress, tell
from polyak.experiments.runs.config import RunConfig
from polyak.experiments.runs.pretrain_config import PretrainConfig


class Terminal(io.StringIO):
    """What a terminal is to Python; it breaks when it is told to."""

    broken = False

    def isatty(self):
        return True

    def write(self, text):
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


def terminal_of(monkeypatch, **environment):
    """Puts a terminal in the place of stderr."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "90", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    return terminal


@pytest.fixture
def clock(monkeypatch):
    """The clock that drawing is throttled by; it stands still."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def plain_text(written):
    """Text without escape sequences, one line for each that was written."""
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written.replace("\r", "\n"))


def test_a_terminal_gets_a_panel_and_messages(monkeypatch, clock, capsys):
    terminal = terminal_of(monkeypatch)
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        assert "compiling" in terminal.getvalue()
        progress.show(record_at(1000, 10.0, loss=0.5))
        progress.say("a message [of mine]")
        assert "a message [of mine]" in terminal.getvalue()
        print("a warning", file=sys.stderr)
        print("for a pipe")
        clock[0] += 0.1
        progress.show(record_at(2000, 11.0, loss=0.625))
        assert "0.625" not in terminal.getvalue()  # a moment ago one was drawn
        clock[0] += 1.0
        progress.show(record_at(3000, 20.0, loss=0.75))
        text = terminal.getvalue()
    assert "a warning" in text
    assert "200 steps/s" in text  # 2000 steps in 10 seconds, as all were compiled before
    assert "3 min 55 s" in text
    assert "0.75" in text
    assert capsys.readouterr().out == "for a pipe\n"
    last = plain_text(terminal.getvalue().removeprefix(text))
    assert max(len(line) for line in last.splitlines()) == 88  # of 90: there is room for the ^C that a terminal echoes
    assert "0.75" in last
    assert "3 min 55 s" not in last
    assert "a message" not in last  # it has moved above
    assert sys.stderr is terminal


def test_the_panel_stays_at_the_end_with_the_newest_messages_below(monkeypatch, clock):
    terminal = terminal_of(monkeypatch)
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(1000, 10.0, loss=0.5))
        command = f"interrupted at step 1234, saved; continue with: polyak resume {'x' * 100}"
        progress.say(command)
    lines = plain_text(terminal.getvalue()).splitlines()
    lines = lines[max(number for number, line in enumerate(lines) if line.startswith("╭")) :]
    assert any("loss      0.5" in line for line in lines)
    end = next(number for number, line in enumerate(lines) if line.startswith("╰"))
    assert [line for line in lines[end + 1 :] if line] == [command]  # unbroken, to be copied


def rows_above(written):
    """Number of rows that output moves the cursor up."""
    return written.count("\x1b[1A")


@pytest.mark.parametrize(("columns", "rows"), [("90", 1), ("60", 2), ("40", 3), ("120", 1)])
def test_a_resized_terminal_gets_the_panel_in_the_place_of_the_old_one(monkeypatch, clock, columns, rows):
    terminal = terminal_of(monkeypatch)
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        lines = plain_text(terminal.getvalue()).count("\n") + 1
        before = terminal.getvalue()
        monkeypatch.setenv("COLUMNS", columns)  # a line of 88 columns is wrapped now
        resized(progress, int(columns))
        progress.show(record_at(1000, 10.0))
        written = terminal.getvalue().removeprefix(before)
        assert rows_above(written) == rows * lines - 1
        drawn = [line for line in plain_text(written).splitlines() if line]
        assert {len(line) for line in drawn} == {min(int(columns) - 2, 100)}


def resized(progress, columns):
    """Terminal size that rich reads after a resize."""
    console = progress._display._console
    console._environ = {**console._environ, "COLUMNS": str(columns)}
    console.width = columns


def test_the_end_of_a_run_is_always_drawn(monkeypatch, clock):
    terminal = terminal_of(monkeypatch)
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(49_000, 10.0))
        progress.show(record_at(50_002, 10.1))
    assert "100 %  50,002 / 50,000 steps" in terminal.getvalue()
    assert "evaluating" in terminal.getvalue()


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_be_drawn_on_gets_plain_lines(monkeypatch, term):
    terminal = terminal_of(monkeypatch, TERM=term)
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(1000, 10.0))
    # 1,000 steps in 10 seconds, 8.34 of which were spent compiling.
    assert terminal.getvalue().startswith("    1,000 / 50,000 steps  602/s  1 min 21 s left  return 187.3 (last 20)")
    assert "\x1b" not in terminal.getvalue()


def test_no_color(monkeypatch):
    colors = []
    for environment in ({}, {"NO_COLOR": "1"}):
        terminal = terminal_of(monkeypatch, **environment)
        with Progress(RunConfig(), quiet=False) as progress:
            progress.begin("runs/here", RESOLVED)
            progress.show(record_at(1000, 10.0))
        colors.append(re.findall(r"\x1b\[[\d;]*3[0-8][\d;]*m", terminal.getvalue()))
    assert colors[0]
    assert not colors[1]


def test_elsewhere_plain_lines_now_and_then(capsys, clock, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        for step, moment in ((1000, 100.0), (2000, 105.0), (3000, 111.0), (50_000, 112.0)):
            clock[0] = moment
            progress.show(record_at(step, step / 100))
        progress.say("a message")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" / ")[0].strip() for line in lines[:3]] == ["1,000", "3,000", "50,000"]
    assert "loss 0.0123  target distance 0.21" in lines[0]
    assert "7 min 50 s left" in lines[1]
    assert lines[3:] == ["a message"]
    assert "\x1b" not in "".join(lines)


def test_quiet_shows_nothing_and_says_what_matters(monkeypatch):
    terminal = terminal_of(monkeypatch)
    with Progress(RunConfig(), quiet=True) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(50_000, 10.0))
        assert terminal.getvalue() == ""
        progress.say("interrupted at step 5")
    assert terminal.getvalue() == "interrupted at step 5\n"


def test_before_the_first_learner_step(capsys):
    record = record_at(500, 1.0, learner_steps=0, loss=None, return_mean_20=None, return_last=None)
    with Progress(RunConfig(), quiet=False) as progress:
        progress.show(record | {"target_distance/q": None})
    assert capsys.readouterr().err.endswith("return - (last 20)  epsilon 0.05  not learning yet\n")


def use(progress):
    progress.begin("runs/here", RESOLVED)
    progress.show(record_at(1000, 10.0))
    progress.say("a message")


@pytest.mark.parametrize("terminal_is", ["broken", "breaking", "closed", "absent"])
def test_a_stderr_that_cannot_be_written_to_makes_progress_silent(monkeypatch, terminal_is):
    terminal = terminal_of(monkeypatch)
    terminal.broken = terminal_is == "broken"
    if terminal_is == "closed":
        terminal.close()
    if terminal_is == "absent":
        monkeypatch.setattr(sys, "stderr", None)
    with Progress(RunConfig(), quiet=False) as progress:
        use(progress)
        terminal.broken = True
        use(progress)
    assert sys.stderr is (None if terminal_is == "absent" else terminal)


def test_a_report_that_nobody_reads(monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream := Terminal())
    tell("read")
    stream.broken = True
    tell("not read")
    tell("nor this")
    assert stream.getvalue() == "read\n"
    assert sys.stdout is None


def test_plain_lines_of_pretraining_keep_the_newest_probe(capsys, clock):
    with Progress(PretrainConfig(), quiet=False) as progress:
        progress.begin("runs/here", {})
        for step, probes in ((200, PROBES), (220, {})):
            clock[0] += 20
            progress.show(PRETRAINING | probes | {"step": step})
    first, second = capsys.readouterr().err.splitlines()
    told = "200 / 1,000 steps 5.6/s 2 min 23 s left probe 0.853 (10 labels a class) spread 0.87 loss 0.25"
    assert " ".join(first.split()) == told
    assert "220 / 1,000 steps" in second
    assert "probe 0.853 (10 labels a class)" in second


def test_lines_and_panel_keep_the_newest_evaluation_and_its_step(capsys, clock, monkeypatch):
    config = RunConfig(evaluate_every=1000)
    with Progress(config, quiet=False) as progress:
        progress.show(record_at(1000, 10.0, greedy_return=480.25, greedy_standard_error=3.25))
        clock[0] += 20
        progress.show(record_at(2000, 20.0))
    assert [line.count("evaluation 480.2") for line in capsys.readouterr().err.splitlines()] == [1, 1]
    terminal = terminal_of(monkeypatch)
    with Progress(config, quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(1000, 10.0, greedy_return=480.25, greedy_standard_error=None))
        clock[0] += 20
        before = len(terminal.getvalue())
        progress.show(record_at(2000, 20.0))
    assert "evaluated 480.2 at step 1,000" in plain_text(terminal.getvalue()[before:])


def test_the_speed_leaves_out_compilation(monkeypatch, clock):
    terminal = terminal_of(monkeypatch)
    with Progress(RunConfig(steps=10_000), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        for step, seconds, compiled in ((1000, 12.0, 2.0), (2000, 30.0, 10.0), (3000, 45.0, 15.0)):
            clock[0] += 20
            progress.show(record_at(step, seconds, compile_seconds=compiled))
            before = len(terminal.getvalue())
        last = terminal.getvalue()[:before]
    assert last.count("100 steps/s") == 3  # each 1,000 steps took 10 seconds beside those of compiling
    assert "1 min 10 s" in last[last.rindex("left ") :]


class Notebook:
    """Stand-in for the display of a notebook: MIME bundles in the order in which they are shown."""

    def __init__(self):
        self.shown, self.updates = [], []

    def display(self, bundle, *, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(bundle)
        return self

    def update(self, bundle, *, raw):
        assert raw
        self.updates.append(bundle)


class ZMQInteractiveShell:
    """Class by whose name rich knows a notebook."""


def test_a_notebook_gets_a_panel_that_is_updated_in_place(monkeypatch, clock, capsys):
    notebook, module = Notebook(), types.ModuleType("IPython.display")
    module.display = notebook.display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    with Progress(RunConfig(env="<b>Odd-v0"), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(1000, 10.0))
        progress.say("a message")
        clock[0] += 1.0
        progress.show(record_at(2000, 20.0, loss=0.75))
    assert len(notebook.shown) == 1
    assert "compiling" in notebook.shown[0]["text/plain"]
    assert len(notebook.updates) == 3  # two records and the last state
    for bundle in notebook.updates[1:]:
        assert "loss      0.75" in bundle["text/plain"]
        assert "0.75" in bundle["text/html"]
        assert bundle["text/html"].startswith("<pre style=")
        assert "&lt;b&gt;Odd-v0" in bundle["text/html"]  # no markup of others
    assert "\x1b" not in notebook.updates[0]["text/plain"]
    assert capsys.readouterr().out == "a message\n"


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    with Progress(RunConfig(), quiet=False) as progress:
        progress.begin("runs/here", RESOLVED)
        progress.show(record_at(1000, 10.0))
    assert capsys.readouterr().err.startswith("    1,000 / 50,000 steps")
