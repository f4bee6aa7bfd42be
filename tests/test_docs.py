"""Every Python block of the README and of docs/ runs, and prints what it says; every `polyak` line parses."""

import dataclasses
import json
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import pytest
import tyro

from polyak import __main__ as entry
from polyak.agents import AGENTS, DQNConfig
from polyak.catalogue import agents_table
from polyak.experiments import cli
from polyak.experiments.runs import build
from polyak.experiments.runs.config import RunConfig, to_json

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = ROOT / "experiments" / "scripts"


def blocks(language):
    return [
        (f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}", match[1])
        for page in PAGES
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


@pytest.mark.parametrize("code", [pytest.param(code, id=place) for place, code in blocks("python")])
def test_every_python_block_runs(code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})
    wanted = re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()][: len(wanted)] == wanted


class Parsed(Exception):  # noqa: N818 (nothing is wrong)
    """What a command was asked to do, in the place of doing it."""


@pytest.mark.parametrize("arguments", shell_lines("polyak"))
def test_every_polyak_line_asks_for_what_can_be_done(arguments, monkeypatch, capsys):
    parse = tyro.cli

    def parse_only(*positional, **named):
        raise Parsed(parse(*positional, **named))

    monkeypatch.setattr(tyro, "cli", parse_only)
    monkeypatch.setattr(sys, "argv", ["polyak", *arguments])
    try:
        status = entry.main() if arguments[0].startswith("-") else cli.run(arguments)
    except Parsed as parsed:
        (command,) = parsed.args
        if isinstance(command, cli.TrainCommand):  # environment, target and every number are as they can be
            build.build(command.config).environment.close()
        return
    except SystemExit as end:
        status = end.code
    assert status == 0, capsys.readouterr()


@pytest.mark.parametrize("arguments", shell_lines("python"))
def test_every_python_line_starts_something_that_is_there(arguments):
    assert arguments[0] == "-m" or (ROOT / arguments[0]).is_file()


def test_the_tables_of_options_are_those_of_the_commands():
    options, text = runpy.run_path(str(ROOT / "docs" / "options.py")), (ROOT / "docs" / "command_line.md").read_text()
    assert sorted(re.findall(r"<!-- options of (\w+) -->", text)) == sorted(options["option_classes"]())
    assert options["page"](text) == text, "python docs/options.py writes them"


AGENTS_PAGE = (ROOT / "docs" / "agents.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## )", AGENTS_PAGE, re.MULTILINE | re.DOTALL))


def test_every_agent_has_a_section_in_the_order_of_the_table():
    assert [name for name in SECTIONS if name != "Diagnostics"] == list(AGENTS)


def test_the_table_of_agents_is_what_the_command_prints():
    assert f"<!-- agents -->\n\n{agents_table('markdown')}\n" in AGENTS_PAGE


def test_the_page_of_agents_says_what_their_configs_and_the_catalogue_have():
    options, front = runpy.run_path(str(ROOT / "docs" / "options.py")), (ROOT / "README.md").read_text()
    assert options["agents_page"](AGENTS_PAGE) == AGENTS_PAGE, "python docs/options.py writes it"
    assert options["readme"](front) == front, "python docs/options.py writes it"
    assert [name for name in AGENTS if f"](docs/agents.md#{name}) | " in front] == list(AGENTS)


@pytest.mark.parametrize("name", AGENTS)
def test_a_section_has_papers_parts_equation_numbers_differences_and_a_command(name):
    text = SECTIONS[name]
    marks = [
        "- papers: [",
        "- head: ",
        "\n```\n",
        "| option | here | on Atari |",
        "Differences: ",
        "\n```sh\npolyak train ",
    ]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert f"\npolyak train {name}" in text
    # What the paper had on Atari is a config too: the options exist, and go together.
    published = {
        option.replace("-", "_"): value.split(",")[0]
        for option, value in re.findall(r"^\| `--([a-z-]+)` \| .* \| (.*) \|$", text, re.MULTILINE)
    }
    types = {field: type(getattr(AGENTS[name], field) or 1.0) for field in published}
    read = {bool: lambda word: {"on": True, "off": False}[word], tuple: lambda word: (int(word),)}
    dataclasses.replace(
        AGENTS[name], **{field: read.get(types[field], types[field])(word) for field, word in published.items()}
    )


@pytest.mark.parametrize("name", AGENTS)
def test_a_section_tells_every_number_that_is_the_agents_own(name):
    for field in dataclasses.fields(DQNConfig):
        value = getattr(AGENTS[name], field.name)
        one_step = field.name == "n_steps" and value == 1  # most are
        told_as_parts = isinstance(value, bool) or field.name in ("head", "memory")
        if value != field.default and not one_step and not told_as_parts:
            assert f"`--{field.name.replace('_', '-')}` | {value} |" in SECTIONS[name] or (
                f"--{field.name.replace('_', '-')} {value:g}" in SECTIONS[name]
            ), field.name


def test_the_table_of_scores_has_the_results_of_the_agents_as_they_are(tmp_path):
    script = runpy.run_path(str(ROOT / "experiments" / "reproduce" / "agents.py"))

    def line(agent, seed, reached, training, **changed):
        config = to_json(RunConfig(AGENTS[agent], agent))["agent"] | changed
        scores = {"steps_to_400": reached, "training_return": training, "greedy_mean": 500.0}
        return {"agent": agent, "seed": seed, "steps": 10, "config": config, **scores}

    lines = [
        line("iqn", 0, 61_000, 450.0),
        line("dqn", 1, None, 100.0),
        line("dqn", 0, 52_500, 410.0, learning_rate=0.5),  # another config: trained anew
        line("dqn", 0, 52_500, 400.0),
        line("dqn", 2, 52_500, 400.0, gone=1),  # a field that there is no more
        line("dqn", 2, 52_500, 400.0) | {"steps": 11},
    ]
    results = tmp_path / "agents.jsonl"
    results.write_text("".join(json.dumps(each) + "\n" for each in lines))
    known = script["known"](results, 10)
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
        "python -m pip install -e . && polyak train",
        'python -m pip install -e ".[test]" && python -m pytest',
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
    assert len(script.read_text().splitlines()) < 40


@pytest.mark.parametrize("name", ["hard_target", "soft_target"])
def test_the_scripts_with_an_agent_run(name):
    code = f"import runpy; runpy.run_path({str(SCRIPTS / name)!r} + '.py')['main'](steps=1500)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "greedy return" in done.stdout


def test_the_two_scripts_differ_in_one_line():
    hard, soft = ((SCRIPTS / f"{name}_target.py").read_text().splitlines() for name in ("hard", "soft"))
    assert sum(a != b for a, b in zip(hard, soft, strict=True)) == 1


def test_the_average_of_the_third_script_is_the_better_one(capsys):
    main = runpy.run_path(str(SCRIPTS / "averaged_evaluation.py"))["main"]
    for seed in range(2):
        online, average = main(steps=1_500, seed=seed)
        assert average < 0.5 * online
        assert capsys.readouterr().out.endswith(f"step 1500: error {online:.4f}, of the average {average:.4f}\n")
