"""Agents reach what they should on real environments: minutes each, run by .ci/run."""

import json
import pathlib
import runpy

import pytest

from polyak.agents import AGENTS
from polyak.experiments import cli

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


def greedy_and_best(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(record["return_mean"] for record in records if record["return_mean"] is not None)
    return json.loads((folder / "evaluation.json").read_text())["mean"], best


def test_the_quickstart_solves_cartpole(tmp_path):
    assert cli.run(["train", "--out", str(tmp_path / "run")]) == 0
    greedy, _ = greedy_and_best(tmp_path / "run")
    assert greedy >= 475


@pytest.mark.parametrize("target", ["incremental:0.005", "periodic:500", "none"])
def test_the_quickstart_learns_under_other_targets_with_nothing_else_changed(target, tmp_path):
    assert cli.run(["train", "--target", target, "--out", str(tmp_path / "run")]) == 0
    greedy, _ = greedy_and_best(tmp_path / "run")
    assert greedy >= 100  # ten times what an untrained network reaches


# Environment steps by which an agent has reached 400 with some to spare; docs/agents.md has three seeds of 100 000.
SOON = ("n_step_double_dqn", "c51", "noisy_dqn", "rainbow", "hl_gauss", "bootstrapped_dqn", "drq")
STEPS = dict.fromkeys(AGENTS, 150_000) | dict.fromkeys(SOON, 100_000)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_reaches_400_on_cartpole(name, tmp_path):
    assert cli.run(["train", name, "--steps", str(STEPS[name]), "--out", str(tmp_path / "run")]) == 0
    _, best = greedy_and_best(tmp_path / "run")
    assert best >= 400  # a mean over a hundred training episodes


def test_c51_with_a_derived_support_learns_acrobot(tmp_path):
    assert cli.run(["train", "c51", "--env", "Acrobot-v1", "--steps", "100000", "--out", str(tmp_path / "run")]) == 0
    _, best = greedy_and_best(tmp_path / "run")
    assert best >= -120


def test_cleanrls_settings_reach_cleanrls_return(tmp_path):
    options = runpy.run_path(str(ROOT / "experiments" / "reproduce" / "cleanrl_cartpole.py"))["OPTIONS"].split()
    assert cli.run(["train", "dqn", *options, "--seed", "1", "--out", str(tmp_path / "run")]) == 0
    _, best = greedy_and_best(tmp_path / "run")
    # Where such a run stands at its very end depends on the seed and the versions (docs/results.md); that it gets there
    # does not.
    assert best >= 470
