"""Every Python block of the README and of docs/ runs, and prints what it says; every `polyak` line parses."""

import json
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tyro

from polyak import __main__ as entry
from polyak.agents import AGENTS, PRESETS, make_configs
from polyak.agents.parts import leaves
from polyak.experiments import cli
from polyak.experiments.runs import build
from polyak.experiments.runs.config import make_run_config, to_json
from polyak.experiments.runs.flags import parse_pretraining, parse_run

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = ROOT / "experiments" / "scripts"
HELP = {"--help", "--help-all"}


def blocks(language):
    return [
        (f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}", match[1])
        for page in PAGES
        if page.name != "your_own.md"  # which is run as a whole by test_your_own.py
        for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def shell_lines(program):
    """The words after ``program`` of each line of a shell block that starts it."""
    lines = [
        (place, shlex.split(line, comments=True))
        for place, code in blocks("sh")
        for line in re.split(r"\n|&&", code.replace("\\\n", " "))
    ]
    started = [(place, words) for place, words in lines if words[:1] == [program]]
    return [pytest.param(words[1:], id=f"{place} {' '.join(words)}") for place, words in started]


# Their blocks make or train agents: in .ci/run.
TRAINING = ("README.md", "adding_an_agent.md", "device_loop.md", "export.md", "pretraining.md", "python_api.md")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=place, marks=pytest.mark.slow if place.startswith(TRAINING) else ())
        for place, code in blocks("python")
    ],
)
def test_every_python_block_runs(code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})
    wanted = re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()][: len(wanted)] == wanted


class Parsed(Exception):  # noqa: N818 (nothing is wrong)
    """The command that was asked for, raised instead of doing it."""


@pytest.mark.parametrize("arguments", shell_lines("polyak"))
def test_every_polyak_line_asks_for_what_can_be_done(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["polyak", *arguments])
    if "minigrid" in str(arguments):
        pytest.importorskip("minigrid", reason="needs the extra minigrid")
    if arguments[0] == "train" and not HELP & {*arguments}:  # environment, target and every number are allowed
        config, _ = parse_run(arguments[1:], cli.TrainCommand, "")
        build.build(config).environment.close()
        return
    if arguments[0] == "pretrain" and not HELP & {*arguments}:  # every number is allowed; images are not read
        parse_pretraining(arguments[1:], cli.PretrainCommand, "")
        return
    if arguments[0] != "agents":

        def parse_only(*positional, **named):
            raise Parsed(parse(*positional, **named))

        parse = tyro.cli
        monkeypatch.setattr(tyro, "cli", parse_only)
    try:
        status = entry.main() if arguments[0].startswith("-") else cli.run(arguments)
    except Parsed:
        return
    except SystemExit as end:
        status = end.code
    assert status == 0, capsys.readouterr()


@pytest.mark.parametrize("arguments", shell_lines("python"))
def test_every_python_line_starts_something_that_is_there(arguments):
    assert arguments[0] == "-m" or (ROOT / arguments[0]).is_file()


def test_the_tables_of_options_are_those_of_the_commands():
    options, text = runpy.run_path(str(ROOT / "docs" / "options.py")), (ROOT / "docs" / "command_line.md").read_text()
    assert sorted(re.findall(r"<!-- options of (\w+) -->", text)) == sorted(options["tables"]())
    assert options["page"](text) == text, "python docs/options.py writes them"


AGENTS_PAGE = (ROOT / "docs" / "agents.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", AGENTS_PAGE, re.MULTILINE | re.DOTALL))


def test_every_agent_has_a_section_in_the_order_of_the_table():
    assert [name for name in SECTIONS if name != "Diagnostics"] == list(AGENTS)


def test_the_table_of_agents_has_name_idea_paper_and_measured_score():
    (table,) = re.findall(r"<!-- agents -->\n\n(.*?)\n\n<!-- end -->", AGENTS_PAGE, re.DOTALL)
    header, _, *rows = table.splitlines()
    assert header == "| agent | idea | paper | score |"
    for row, (name, agent) in zip(rows, AGENTS.items(), strict=True):
        paper = agent.papers[0]
        measured = re.search(rf"^\| \[`{name}`\]\(#{name}\) \| [\w, ]+ \| ([\d.]+) \(", AGENTS_PAGE, re.MULTILINE)
        score = measured[1] if measured else "not measured"
        assert row == f"| [`{name}`](#{name}) | {agent.summary} | [{paper.authors}]({paper.url}) | {score} |"


WRITTEN = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("agents", "byol", "pretraining")}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_table_written_by_hand_fits_on_a_page(name):
    text = re.sub(r"<!-- [a-z ]+ -->\n.*?<!-- end.*? -->", "", WRITTEN[name], flags=re.DOTALL)
    rows = [re.sub(r"\]\([^)]*\)|[`\[]", "", row) for row in re.findall(r"^\| (.*) \|$", text, re.MULTILINE)]
    assert rows
    assert [row for row in rows if len(row.replace(" | ", "  ")) > 90] == []


@pytest.mark.parametrize("name", WRITTEN)
def test_an_option_in_prose_stands_in_code(name):
    prose = re.sub(r"^```.*?^```$|`[^`]+`|<!--.*?-->", "", WRITTEN[name], flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"(?<!-)--[a-z][\w-]*", prose) == []


def test_the_page_of_agents_has_what_the_table_of_agents_has():
    options, front = runpy.run_path(str(ROOT / "docs" / "options.py")), (ROOT / "README.md").read_text()
    assert options["agents_page"](AGENTS_PAGE) == AGENTS_PAGE, "python docs/options.py writes it"
    assert options["readme"](front) == front, "python docs/options.py writes it"
    assert [name for name in AGENTS if f"](docs/agents.md#{name}) | " in front] == list(AGENTS)


@pytest.mark.parametrize("name", AGENTS)
def test_a_section_has_papers_parts_equation_numbers_differences_and_a_command(name):
    text = SECTIONS[name]
    marks = [
        "- papers: [",
        "- begins with: ",
        "\n```math\n",
        f"| option | {' | '.join(f'`{preset}`' for preset in PRESETS)} |",
        "Differences: ",
        "\n```sh\npolyak train ",
    ]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert f"\npolyak train {name}" in text


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", [name for name, entry in AGENTS.items() if entry.begins_with])
def test_a_section_has_every_number_in_which_an_agent_differs_from_the_one_it_begins_with(name, preset):
    text = SECTIONS[name].replace("<wbr>", "")  # a place at which a cell may break
    numbers = dict(re.findall(r"^\| `--([\w-]+)` \| (.*) \|$", text, re.MULTILINE))
    own, other = (leaves(make_configs(agent, preset)) for agent in (name, AGENTS[name].begins_with))
    column = list(PRESETS).index(preset)
    for leaf in own.keys() & other.keys():
        shown = numbers.get(leaf.replace("_", "-"))
        if own[leaf] != other[leaf]:
            assert shown is not None, leaf
        if shown is not None and not isinstance(own[leaf], bool | tuple):
            assert shown.split(" | ")[column] == str(own[leaf])


def test_the_table_of_scores_has_the_results_of_the_agents_as_they_are(tmp_path):
    script = runpy.run_path(str(ROOT / "experiments" / "reproduce" / "agents.py"))

    def line(agent, seed, reached, training, **changed):
        fields = {"steps": 2_000, "seed": seed, **changed}
        config = to_json(make_run_config(agent, fields=fields))
        scores = {"steps_to_400": reached, "training_return": training, "greedy_mean": 500.0}
        return {"agent": agent, "seed": seed, "steps": 2_000, "config": config, **scores}

    lines = [
        line("iqn", 0, 61_000, 450.0),
        line("dqn", 1, None, 100.0),
        line("dqn", 0, 52_500, 410.0, learning_rate=0.5),  # another config: not the agent's
        line("dqn", 0, 52_500, 400.0),
        line("dqn", 2, 52_500, 400.0) | {"config": {"name": "dqn", "gone": 1}},  # of another version
        line("dqn", 2, 52_500, 400.0) | {"agent": "gone"},
        line("dqn", 2, 52_500, 400.0) | {"steps": 2_001},
    ]
    results = tmp_path / "agents.jsonl"
    results.write_text("".join(json.dumps(each) + "\n" for each in lines))
    known = script["known"](results, 2_000)
    assert sorted(known) == [("dqn", 0), ("dqn", 1), ("iqn", 0)]
    page = script["written"]("before\n<!-- scores -->\nold\n<!-- end -->\nafter\n", known)
    assert page.splitlines() == [
        "before",
        "<!-- scores -->",
        "",
        "| agent | steps to 400 | training | greedy |",
        "|---|---|---|---|",
        "| [`dqn`](#dqn) | 52,500, never | 250.0 (100.0 to 400.0) | 500.0 (500.0 to 500.0) |",
        "| [`iqn`](#iqn) | 61,000, not run | 450.0 (450.0 to 450.0) | 500.0 (500.0 to 500.0) |",
        "",
        "<!-- end -->",
        "after",
    ]
    assert script["written"](page, known) == page
    assert AGENTS_PAGE.count("<!-- scores -->\n") == 1


def test_the_readmes_commands_are_two_blocks_of_their_own():
    commands = [code.strip() for _, code in blocks("sh") if "pip install" in code]
    assert commands[:2] == [
        "python -m pip install . && polyak train",
        'python -m pip install ".[test]" && python -m pytest',
    ]


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_front_page_leads_to_every_page():
    index = (ROOT / "docs" / "index.md").read_text()
    (names,) = re.findall(r"^```{toctree}\n:hidden:\n\n(.*?)^```", index, re.MULTILINE | re.DOTALL)
    assert sorted(["index", *names.split()]) == [page.stem for page in PAGES[1:]]
    assert all(f"({name}.md)" in index for name in names.split())


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_stays_short(script):
    assert len(script.read_text().splitlines()) <= 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hard_target", "soft_target"])
def test_the_scripts_with_an_agent_run(name):
    code = f"import runpy; runpy.run_path({str(SCRIPTS / name)!r} + '.py')['main'](steps=1500)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "greedy return" in done.stdout


def test_the_two_scripts_differ_in_one_line():
    hard, soft = ((SCRIPTS / f"{name}_target.py").read_text().splitlines() for name in ("hard", "soft"))
    assert sum(a != b for a, b in zip(hard, soft, strict=True)) == 1


@pytest.mark.slow
def test_two_slow_copies_in_one_loop_learn_the_values_of_a_random_walk():
    script = runpy.run_path(str(SCRIPTS / "byol_target.py"))
    for seed in range(2):
        assert np.abs(script["main"](seed=seed) - script["VALUES"]).max() < 0.15


@pytest.mark.slow
def test_the_average_of_the_third_script_is_the_better_one(capsys):
    main = runpy.run_path(str(SCRIPTS / "averaged_evaluation.py"))["main"]
    for seed in range(2):
        online, average = main(steps=1_500, seed=seed)
        assert average < 0.5 * online
        assert capsys.readouterr().out.endswith(f"step 1500: error {online:.4f}, of the average {average:.4f}\n")
