"""Help states facts: targets and schedules that parse, commands and options that exist, every agent."""

import re
import shlex
import subprocess
import sys
import typing
from fractions import Fraction

import pytest

from polyak import help, updates
from polyak.agents import AGENTS, PRESETS, Schedule, make_configs
from polyak.agents.parts import bringers, leaves
from polyak.agents_table import agents_table, difference_table, links
from polyak.experiments import cli, commands
from polyak.experiments.runs.config import RunConfig
from polyak.experiments.runs.flag_help import PRETRAIN_OPTIONS, SWEEP_OPTIONS, TRAIN_OPTIONS, attributes
from polyak.experiments.runs.pretrain_config import METHODS, PretrainConfig, make_pretrain_config
from polyak.tables import table

TARGETS, SCHEDULES = (re.findall(r"^  (\S+) ", text, re.MULTILINE) for text in (help.TARGETS, help.SCHEDULES))


@pytest.mark.parametrize("text", TARGETS)
def test_every_target_of_the_help_is_a_rule(text):
    rule = updates.parse(text, horizon=1000, environment_steps_per_learner_step=Fraction(2))
    assert updates.parse(str(rule)) == rule


def test_the_help_has_every_kind_of_target():
    kinds = {re.split("[:(]", text)[0] for text in TARGETS}
    assert kinds == {"periodic", "incremental", "frozen", "none"}
    assert help.TARGETS in help.overview()


def test_the_help_has_every_kind_of_schedule():
    found = [Schedule.of(text) for text in SCHEDULES]
    assert [str(schedule) for schedule in found] == SCHEDULES
    assert {schedule.kind for schedule in found} == {"constant", "linear", "exponential", "cosine", "horizon"}
    assert {schedule.restarts for schedule in found} == {False, True}


@pytest.fixture
def page(capsys, monkeypatch):
    """Output of ``polyak COMMAND --help``, or of ``--help-all``."""
    monkeypatch.setenv("COLUMNS", "80")

    def help_of(*command, option="--help"):
        with pytest.raises(SystemExit) as stop:
            cli.run([*command, option])
        assert stop.value.code == 0
        return capsys.readouterr().out

    return help_of


def test_lines_fit_a_page_of_80_columns_unbroken():
    lines = [line for text in (help.TARGETS, help.SCHEDULES) for line in text.splitlines()]
    lines += [f"  {example}" for command in help.COMMANDS.values() for example in command.examples]
    lines += help.overview().splitlines()
    assert [line for line in lines if len(line) > 78] == []


@pytest.mark.parametrize("command", help.COMMANDS)
def test_a_commands_help_teaches(command, page):
    trains = command in ("train", "sweep", "pretrain")
    everything = {"option": "--help-all"} if trains else {}
    text = page(command, **everything)
    for example in help.COMMANDS[command].examples:
        assert f"  {example}\n" in text  # on a line of its own, unbroken
        assert example.startswith(f"polyak {command}")
        shown = page(*shlex.split(example)[1:], **everything) if everything else text
        for option in re.findall(r"--[a-z-]+", example):
            assert re.search(rf"^\W*{option}\b", shown, re.MULTILINE), option
    assert (help.TARGETS in text) == (help.SCHEDULES in text) == trains


@pytest.mark.parametrize("name", AGENTS)
def test_the_help_of_train_has_exactly_the_flags_of_the_parts_that_are_there(name, page):
    text = page("train", name, option="--help-all")
    shown = set(re.findall(r"^\W* --([a-z][a-z-]*)", text, re.MULTILINE))
    there = leaves(make_configs(name)).keys() | leaves(RunConfig()).keys() - bringers(RunConfig).keys() - {"agent_name"}
    assert shown == {leaf.replace("_", "-") for leaf in there} - {"wrappers"} | {
        "out",
        "quiet",
        "seeds",
        "config",
        "wrapper",
    }
    for union in (
        "head",
        "bootstrap",
        "core",
        "optimizer",
        "target-role",
        "self-prediction",
        "resets",
        "windows",
        "sampling",
    ):
        assert re.search(rf"^\W* --{union}[\s│]+\{{\w+(,[\s│]*\w+)+\}}", text, re.MULTILINE)
        default = re.search(rf"^\W* --{union} .*?\(default: *\W*(\w+)\)", text, re.MULTILINE | re.DOTALL)
        assert default[1] == leaves(make_configs(name))[union.replace("-", "_")]
    titles = re.findall(r"^\W+ ([\w-]+) options", text, re.MULTILINE)
    parts = [
        "network",
        "head",
        "bootstrap",
        "optimizer",
        "target-role",
        "self-prediction",
        "resets",
        "draw",
        "replay",
        "cadence",
        "exploration",
        "normalization",
        "loop",
    ]
    assert sorted(titles) == sorted(["command", "run", "agent", *parts])


def test_the_help_of_pretrain_has_exactly_the_flags_of_the_parts_that_are_there(page):
    for given, config in (([], PretrainConfig()), (["--optimizer", "lars"], lars())):
        text = page("pretrain", "byol", *given, option="--help-all")
        shown = set(re.findall(r"^\W* --([a-z][a-z-]*)", text, re.MULTILINE))
        assert shown == {leaf.replace("_", "-") for leaf in leaves(config)} - {"method"} | {"out", "quiet"}
        titles = re.findall(r"^\W+ ([\w-]+) options", text, re.MULTILINE)
        parts = ["encoder", "projector", "predictor", "views", "optimizer"]
        assert sorted(titles) == sorted(["command", "run", "byol", *parts])


def lars():
    return make_pretrain_config("byol", {"optimizer": "lars"})


def test_defaults_in_the_help_are_those_of_the_agent_and_the_preset(page):
    text = " ".join(
        page("train", "rainbow", "--preset", "atari", "--num-atoms", "21", option="--help-all")
        .replace("│", " ")
        .replace("|", " ")
        .split()
    )
    assert re.search(r"--num-atoms INT Number of atoms or bins of the support. \(default: 51\)", text)
    assert re.search(r"--v-min \S+ [^(]*\(default: -10.0\)", text)
    assert re.search(r"--epsilon SCHEDULE [^(]*\(default: 0\)", text)
    assert re.search(r"--n-steps SCHEDULE [^(]*\(default: 3\)", text)
    text = " ".join(page("train", "dqn", option="--help-all").replace("│", " ").replace("|", " ").split())
    assert "(default: linear(1,0.02,25%))" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_the_short_help_of_train_fits_the_terminal_and_two_pages(width, page, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    text = page("train", "dqn")
    options, ending = text.split("\n\nSCHEDULE is ")
    assert max(map(len, options.splitlines())) <= width
    assert len(text.splitlines()) < 80 or width < 80
    assert help.TARGETS in ending
    assert "`--help-all` prints all options" in ending
    for example in help.COMMANDS["train"].examples[:4]:
        assert f"  {example}\n" in ending


@pytest.mark.parametrize(
    ("command", "names", "options"),
    [("train", AGENTS, TRAIN_OPTIONS), ("sweep", ["dqn"], SWEEP_OPTIONS), ("pretrain", METHODS, PRETRAIN_OPTIONS)],
)
def test_the_short_help_has_its_options_with_the_defaults_of_the_agent(command, names, options, page):
    for name in names:
        text, groups = page(command, name), [*options]
        assert re.findall(r"^(\w.*):$", text, re.MULTILINE) == groups
        shown = re.findall(r"^  --(?:no-)?([a-z-]+)", text, re.MULTILINE)
        absent = {"double"} if name == "munchausen_dqn" else set()
        wanted = [option for found in options.values() for option in found if option not in absent]
        assert shown == [option.replace("_", "-") for option in wanted]
        assert f"The defaults of {name} are in parentheses." in " ".join(text.split())
        if command == "sweep":
            assert re.search(r"--loop NAME .*host, device, \(auto\)", " ".join(text.split()))
            continue
        config = make_configs(name) if command == "train" else PretrainConfig()
        for leaf, value in leaves(config).items():
            if leaf in wanted and isinstance(value, str | int | Schedule) and not isinstance(value, bool):
                about = re.search(rf"^  --{leaf.replace('_', '-')} .*\n(?: {{8,}}.*\n)*", text, re.MULTILINE)[0]
                assert f"({value})" in " ".join(about.split())


def test_the_short_help_shows_the_defaults_that_other_options_give(page):
    assert "--double " in page("train", "dqn")
    assert "--no-double " in page("train", "double_dqn")
    assert "Learning rate (linear(0.001,0,100%))" in page("train", "dqn")
    assert "(classic), minatar, atari" in page("train")
    assert "usage: polyak train [AGENT] [OPTIONS]" in page("train")
    assert "--steps INT             Number of environment steps (50000)" in page("train", option="-h")


def test_every_field_is_described_by_its_own_noun():
    from config_tools import part_types

    for part in (
        *part_types(),
        *part_types(PretrainConfig),
        *(value for name, value in vars(cli).items() if name.endswith("Command")),
    ):
        about = attributes(part)
        assert set(about) == set(part.__dataclass_fields__), part
        for text in about.values():
            assert re.match(r"[A-Z][\w-]*\b", text)
            assert text.endswith(".")


def test_every_command_is_in_the_overview_and_exists():
    assert list(help.COMMANDS) == list(cli._COMMANDS)
    for command in help.COMMANDS.values():
        assert f"  {command.usage}" in help.overview()
        assert command.summary in help.overview()


def test_every_agent_is_in_the_overview_on_one_line():
    for name, entry in AGENTS.items():
        assert f"  {name} " in help.overview()
        assert entry.summary in help.overview()
    assert max(map(len, help.overview().splitlines())) <= 90


def test_remarks_and_papers_name_options_that_the_agent_has():
    for name, entry in AGENTS.items():
        for option in re.findall(r"--(?:no-)?([a-z-]+)", f"{entry.remarks} {[paper.part for paper in entry.papers]}"):
            assert option.replace("-", "_") in leaves(make_configs(name))


def test_the_presets_of_the_options_are_those_there_are():
    assert list(typing.get_args(commands.Preset)) == list(PRESETS)


def test_the_table_of_agents(capsys):
    assert cli.run(["agents", "--format", "markdown"]) == 0
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert rule == "| --- | --- | --- | --- | --- | --- | --- | --- |"
    names = [cell.strip() for cell in header.strip("|").split("|")]
    cells = {row.split("`")[1]: [cell.strip() for cell in row.strip("|").split("|")] for row in rows}
    assert list(cells) == list(AGENTS)
    dqn = dict(zip(names, cells["dqn"], strict=True))
    assert (dqn["agent"], dqn["begins with"], dqn["target"], dqn["head"]) == ("`dqn`", "", "`periodic:200`", "scalar")
    assert dqn["papers"] == "[Mnih et al., 2015](https://www.nature.com/articles/nature14236)"
    rainbow = dict(zip(names, cells["rainbow"], strict=True))
    assert (rainbow["begins with"], rainbow["replay"]) == ("`c51`", "prioritized, n-step")
    assert (rainbow["head"], rainbow["loss"]) == ("dueling, noisy, categorical", "cross-entropy")
    assert cli.run(["agents"]) == 0
    assert capsys.readouterr().out == agents_table()
    for name, entry in AGENTS.items():
        assert f"{name}  " in agents_table()
        assert entry.remarks in f"{agents_table()} none"
        assert links(entry) in agents_table(format="markdown")
    assert cli.run(["agents", "--preset", "atari"]) == 0
    assert "periodic:10000env" in capsys.readouterr().out


def test_the_difference_of_two_agents(capsys):
    assert cli.run(["agents", "--diff", "dqn", "c51"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["field", "dqn", "c51"], ["head", "scalar", "categorical"]]
    assert ["num_atoms", "-", "51"] in lines
    assert ["error", "squared", "-"] in lines
    assert cli.run(["agents", "--diff", "dqn", "double_dqn", "--preset", "atari", "--format", "markdown"]) == 0
    assert "| target | periodic:10000env | periodic:30000env |" in capsys.readouterr().out
    assert difference_table("dqn", "dqn").splitlines() == ["field  dqn  dqn"]
    assert cli.run(["agents", "--diff", "dqn", "rainbw"]) == 2
    assert "agent: got 'rainbw'; expected one of dqn," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        ("--help", "jax numpy haiku tyro"),
        ("agents", "jax numpy haiku"),
        ("agents --diff dqn rainbow", "jax numpy haiku"),
        ("train rainbow --help", "jax numpy haiku"),
        ("train rainbow --help-all", "jax numpy haiku"),
        ("resume --help", "jax numpy haiku"),
        ("pretrain byol --help", "jax numpy haiku"),
    ],
)
def test_help_and_tables_are_printed_without_anything_heavy(arguments, heavy):
    code = f"import sys, runpy; sys.argv = ['polyak', *{arguments.split()}]\n"
    code += "try: runpy.run_module('polyak', run_name='__main__')\n"
    code += f"except SystemExit as stop: print(stop.code, [m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_cells_with_the_marks_of_a_format_stay_cells():
    assert table(["a"], [["x|y"]], "markdown").splitlines()[-1] == "| x\\|y |"
    assert table(["a", "b"], [["x,y", 'z"']], "csv").splitlines()[-1] == '"x,y","z"""'
