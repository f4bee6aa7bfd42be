"""The page docs/your_own.md, line by line: its module, its commands, its Python, and networks of other libraries."""

import os
import pathlib
import re
import shlex
import sys

import numpy as np
import pytest

import polyak
from polyak.agents import AGENTS
from polyak.experiments import cli
from polyak.experiments.runs.records import read_jsonl

PAGE = (pathlib.Path(__file__).parent.parent / "docs" / "your_own.md").read_text()
MODULE, PYTHON, *ADAPTERS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]


@pytest.fixture
def orchard(tmp_path, monkeypatch):
    (tmp_path / "orchard.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the processes of the seeds
    yield tmp_path
    sys.modules.pop("orchard", None)
    AGENTS.pop("picker", None)


@pytest.mark.slow
def test_every_command_and_the_python_after_it(orchard, capsys):
    assert [words[:2] for words in COMMANDS] == [
        ["polyak", command] for command in ("train", "train", "compare", "evaluate", "resume", "record", "export")
    ]
    for words in COMMANDS:
        assert cli.run(words[1:]) == 0, (words, capsys.readouterr().err)
    told = capsys.readouterr().out
    assert "picker" in told
    assert "small_dqn" in told
    for seed in range(1, 5):  # each ended with the first evaluation that was good enough; seed 0 was extended
        found = [
            record["greedy_return"]
            for record in read_jsonl(orchard / "runs" / "picker" / f"seed{seed}" / "metrics.jsonl")
            if record.get("greedy_return") is not None
        ]
        assert max(found[:-1], default=-np.inf) < -5 <= found[-1]
        assert len(found) < 8
    for path in ("runs/picker/comparison.png", "comparison.png", "picker.gif", "picker/manifest.json"):
        assert (orchard / path).stat().st_size > 0
    exec(compile(PYTHON, "documentation", "exec"), {"__name__": "documentation"})
    wanted = re.findall(r"print\(.*\)  # (.*)$", PYTHON, re.MULTILINE)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("code", ADAPTERS)
def test_networks_of_other_libraries_learn_and_are_resumed_to_the_bit(code, tmp_path):
    [name] = re.findall(r"^def (of_\w+)\(spec\)", code, re.MULTILINE)
    found = {"__name__": "documentation"}
    exec(compile(code, "documentation", "exec"), found)
    fields = {"network": found[name], "steps": 400, "learning_starts": 100, "evaluation_episodes": 2, "log_every": 100}
    fields |= {"target": "periodic:10 q/torso=incremental:0.1", "checkpoint_every": 100}

    def interrupting(carry, record):
        if record["step"] == 200:
            raise RuntimeError("stop here")

    whole = polyak.train("dqn", out=tmp_path / "whole", **fields)
    with pytest.raises(RuntimeError, match="stop here"):
        polyak.train("dqn", out=tmp_path / "parts", callbacks=[interrupting], **fields)
    parts = polyak.resume(tmp_path / "parts", network=found[name])
    np.testing.assert_equal(parts.metrics["loss"], whole.metrics["loss"])
    assert whole.metrics["gradient_norm"][-1] > 0
    assert set(whole.variables.params) == {"torso", "head"}
    assert whole.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
