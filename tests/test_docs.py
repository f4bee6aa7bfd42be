"""Every Python block of the README and of docs/ runs; what a comment says is printed, is printed."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language):
    return [
        (f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}", match[1])
        for page in PAGES
        for match in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("code", [pytest.param(code, id=place) for place, code in blocks("python")])
def test_every_python_block_runs(code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})
    wanted = re.findall(r"print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()][: len(wanted)] == wanted


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


@pytest.mark.parametrize("script", sorted((ROOT / "experiments" / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_runs_and_stays_short(script):
    assert len(script.read_text().splitlines()) < 40
    code = f"import runpy; runpy.run_path({str(script)!r})['main'](steps=1500)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "greedy return" in done.stdout


def test_the_two_scripts_differ_in_one_line():
    hard, soft = (
        (ROOT / "experiments" / "scripts" / f"{name}_target.py").read_text().splitlines() for name in ("hard", "soft")
    )
    assert sum(a != b for a, b in zip(hard, soft, strict=True)) == 1
