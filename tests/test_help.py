"""Help teaches what is true: targets that parse, commands and options that there are, every agent."""

import re
import subprocess
import sys
from fractions import Fraction

import pytest

from polyak import agents, help, updates
from polyak.catalogue import AGENTS, COMMON, agents_table
from polyak.experiments import cli
from polyak.tables import table

TARGETS = re.findall(r"^  (\S+) ", help.TARGETS, re.MULTILINE)


@pytest.mark.parametrize("text", TARGETS)
def test_every_target_of_the_help_is_a_rule(text):
    rule = updates.parse(text, horizon=1000, environment_steps_per_learner_step=Fraction(2))
    assert updates.parse(str(rule)) == rule


def test_the_help_has_every_kind_of_target():
    kinds = {re.split("[:(]", text)[0] for text in TARGETS}
    assert kinds == {"periodic", "incremental", "frozen", "none"}
    assert help.TARGETS in help.overview()


@pytest.fixture
def page(capsys, monkeypatch):
    """What ``polyak COMMAND --help`` prints."""
    monkeypatch.setenv("COLUMNS", "80")

    def help_of(command):
        with pytest.raises(SystemExit) as stop:
            cli.run([command, "--help"])
        assert stop.value.code == 0
        return capsys.readouterr().out

    return help_of


@pytest.mark.parametrize("command", help.COMMANDS)
def test_a_commands_help_teaches(command, page):
    text = page(command)
    for example in help.COMMANDS[command].examples:
        assert f"  {example}\n" in text  # on a line of its own, unbroken
        assert example.startswith(f"polyak {command}")
        for option in re.findall(r"--[a-z-]+", example):
            assert re.search(rf"^\W*{option}\b", text, re.MULTILINE), option
    assert (help.TARGETS in text) == (command == "train")


def test_every_command_is_told_and_there_is():
    assert list(help.COMMANDS) == list(cli._COMMANDS)
    for command in help.COMMANDS.values():
        assert f"  {command.usage}" in help.overview()
        assert command.summary in help.overview()


def test_the_catalogue_is_of_the_agents_there_are():
    assert list(AGENTS) == list(agents.AGENTS)
    for name, entry in AGENTS.items():
        assert entry.target == agents.AGENTS[name].target
        assert f"  {name} " in help.overview()
        for option in re.findall(r"--(?:no-)?([a-z-]+)", f"{entry.summary} {[paper.part for paper in entry.papers]}"):
            assert hasattr(agents.AGENTS[name], option.replace("-", "_"))


def test_the_table_of_agents(capsys):
    assert cli.run(["agents", "--format", "markdown"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert rule == "| --- | --- | --- | --- | --- | --- | --- |"
    names = [cell.strip() for cell in header.strip("|").split("|")]
    dqn = dict(zip(names, (cell.strip() for cell in rows[0].strip("|").split("|")), strict=True))
    assert (dqn["agent"], dqn["default target"], dqn["head"]) == ("`dqn`", "`periodic:100`", "Q-values")
    assert "[Mnih et al., 2015](https://www.nature.com/articles/nature14236)" in dqn["papers"]
    assert len(rows) == len(AGENTS)
    assert cli.run(["agents"]) == 0
    assert capsys.readouterr().out == agents_table("text")
    assert agents_table().splitlines()[-1] == COMMON
    assert all(f"  {entry.differences}\n" in agents_table() for entry in AGENTS.values())


def test_agents_are_told_without_anything_heavy():
    code = "import sys, runpy; sys.argv = ['polyak', 'agents']\ntry: runpy.run_module('polyak', run_name='__main__')\n"
    code += "except SystemExit as stop: print(stop.code, [m for m in ('jax', 'numpy', 'haiku') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_cells_with_the_marks_of_a_format_stay_cells():
    assert table(["a"], [["x|y"]], "markdown").splitlines()[-1] == "| x\\|y |"
    assert table(["a", "b"], [["x,y", 'z"']], "csv").splitlines()[-1] == '"x,y","z"""'
