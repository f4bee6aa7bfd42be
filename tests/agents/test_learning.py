"""Agents reach what they should on real environments: minutes each, run by .ci/run."""

import json
import math
import pathlib
import runpy

import pytest

from polyak.agents import AGENTS
from polyak.experiments import cli
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.config import make_run_config
from polyak.experiments.runs.flags import parse_run
from small_runs import interrupt_when, silent

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_as_released")]
ROOT = pathlib.Path(__file__).parents[2]


def reaches(config, wanted, folder):
    """Whether the mean return of twenty training episodes in a row reaches ``wanted``; the run ends where it does."""
    returns, means = [], [-math.inf]

    def there(record):
        returns.extend(record["returns"])
        means.append(-math.inf if len(returns) < 20 else sum(returns[-20:]) / 20)
        return means[-1] >= wanted

    runs.train(config, folder, interrupt_when(there), silent)
    print(f"{config.agent_name} on {config.env}: {max(means)} at record {len(means) - 1}")
    return max(means) >= wanted


def test_the_quickstart_solves_cartpole(tmp_path):
    assert cli.run(["train", "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["mean"] >= 475


@pytest.mark.parametrize("target", ["incremental:0.005", "periodic:500", "none"])
def test_the_quickstart_learns_under_other_targets_with_nothing_else_changed(target, tmp_path):
    assert reaches(make_run_config(fields={"target": target}), 100, tmp_path / "run")  # untrained: about 10


# Environment steps of a run; it ends where the agent has reached 400. Epsilon and the learning rate fall over a part of
# the run, so agents that learn fast get there sooner in a short one.
FAST, LATE = ("spr", "sr_spr", "bbf"), ("qr_dqn", "iqn", "munchausen_dqn", "r2d2")
STEPS = dict.fromkeys(AGENTS, 100_000) | dict.fromkeys(LATE, 150_000) | dict.fromkeys(FAST, 50_000)


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_reaches_400_on_cartpole(name, tmp_path):
    assert reaches(make_run_config(name, fields={"steps": STEPS[name]}), 400, tmp_path / "run")


@pytest.mark.parametrize("name", ["c51", "rainbow", "hl_gauss"])
def test_a_derived_support_learns_acrobot(name, tmp_path):
    config = make_run_config(name, fields={"env": "Acrobot-v1", "steps": 100_000})
    assert reaches(config, -120, tmp_path / "run")


def test_cleanrls_settings_reach_cleanrls_return(tmp_path):
    options = runpy.run_path(str(ROOT / "experiments" / "reproduce" / "cleanrl_cartpole.py"))["OPTIONS"].split()
    config, _ = parse_run(["dqn", *options, "--seed", "1"], cli.TrainCommand, "")
    # Where such a run stands at its very end depends on the seed and the versions (docs/results.md); that it gets there
    # does not.
    assert reaches(config, 470, tmp_path / "run")
