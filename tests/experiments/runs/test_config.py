"""The config of a run: flat fields, checks where agent and loop meet, and JSON."""

import json
import re

import pytest
from hypothesis import given

from config_tools import run_configs, unions
from polyak.agents import AGENTS, PRESETS
from polyak.agents.config import LSTM, Quantile
from polyak.agents.parts import leaves
from polyak.experiments.runs.config import RunConfig, from_json, make_run_config, to_json

RECURRENT = {"core": "lstm", "windows": "sequences", "sequence_length": 20, "sequence_period": 10}
BAD = {
    "transitions for a recurrent core": (
        {"core": "lstm"},
        "^windows: got 'transitions', but core is 'lstm'; .*Try --windows sequences, or --core none",
        {"windows": "sequences"},
    ),
    "transitions for a recurrent core, the other way out": (
        {"core": "lstm"},
        "^windows: got 'transitions', but core is 'lstm'; .*Try --windows sequences, or --core none",
        {"core": "none"},
    ),
    "a sequence longer than the replay": (
        {**RECURRENT, "burn_in": 31, "replay_capacity": 50, "batch_size": 1},
        "^sequence_length: got 20, and burn_in is 31; expected together .*50. Try --replay-capacity 51, or shorter",
        {"burn_in": 30},
    ),
    "a sequence longer than the replay, the other way out": (
        {**RECURRENT, "burn_in": 31, "replay_capacity": 50, "batch_size": 1},
        "^sequence_length: got 20, .* Try --replay-capacity 51",
        {"replay_capacity": 51},
    ),
    "more steps than the replay of one environment": (
        {"num_envs": 4000},
        "^replay_capacity: got 20000 for 4000 environments, 5 steps .*at least 10 .*Try --replay-capacity 40000",
        {"replay_capacity": 40000},
    ),
    "a sequence longer than the replay of one environment": (
        {**RECURRENT, "burn_in": 30, "replay_capacity": 1000, "num_envs": 25},
        "^replay_capacity: .*expected at least 50 for each.*Try --replay-capacity 1250",
        {"replay_capacity": 1250},
    ),
    "no learning": (
        {"steps": 1000},
        "^learning_starts: got 1000, but the run ends at step 1000, .*Try --learning-starts 100, or --steps 10000",
        {"learning_starts": 100},
    ),
    "more workers than environments": (
        {"workers": 3, "num_envs": 2},
        "^workers: got 3 for 2 environments; expected at most one for each. Try --num-envs 3",
        {"num_envs": 3},
    ),
    "a restart in the same process": (
        {"on_env_failure": "restart"},
        "^on_env_failure: got 'restart' and no workers; .*Try --workers 1",
        {"workers": 1},
    ),
    "a limit of time in the same process": (
        {"worker_timeout": 5},
        "^worker_timeout: got 5.0 and no workers; only a step of a worker process .*Try --workers 1.$",
        {"workers": 1},
    ),
    "returns without a bound": (
        {"head": "categorical", "discount": 1},
        "^v_min: got None with a discount of 1, under which returns have no bound. .*--v-min and --v-max",
        {"v_min": 0.0, "v_max": 500.0},
    ),
    "returns that lose their bound": (
        {"head": "hl_gauss", "discount": "linear(0.9,1,50%)"},
        "^v_min: got None with a discount of 1, under which returns have no bound. .*--v-min and --v-max",
        {"discount": "linear(0.9,0.99,50%)"},
    ),
    "returns without a bound, and the support of a warm start": (
        {"head": "categorical", "discount": 1},
        "^v_min: got None with a discount of 1",
        {"initial": "runs/3"},
    ),
    "a large seed": (
        {"seed": 2**32 + 7},
        r"^seed: got 4294967303; expected an integer below 2\*\*32. Try --seed 7.$",
        {"seed": 7},
    ),
    "a seed that is just too large": ({"seed": 2**32}, "^seed: got 4294967296; expected", {"seed": 2**32 - 1}),
    "a logger twice": (
        {"loggers": ("csv", "csv")},
        "^loggers: got csv, csv; expected each at most once. Try --loggers csv.$",
        {"loggers": ("csv",)},
    ),
    "no such logger": ({"loggers": ("cvs",)}, "^loggers: got 'cvs'; .*Did you mean 'csv'", {"loggers": ()}),
    "a number as a path": ({"initial": 3}, r"^initial: got 3 \(int\); expected a string", {"initial": "runs/3"}),
    "no such field": ({"stepz": 3}, "^field: got 'stepz'; it does not exist. Did you mean 'steps'", None),
    "no such field of the agent": (
        {"lerning_rate": 3},
        "^field: got 'lerning_rate'; .*Did you mean 'learning_rate'",
        None,
    ),
    "a field of an absent part": (
        {"num_atoms": 3},
        "^num_atoms: got 3, but head is 'scalar'.*Try --head categorical",
        None,
    ),
    "a whole config": ({"agent": 3}, "^field: got 'agent'; it does not exist", None),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_fields(case):
    fields, message, way_out = BAD[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        make_run_config(fields=fields)
    assert re.search(message, str(caught.value)), str(caught.value)
    if way_out is not None:
        make_run_config(fields={**fields, **way_out})


def test_fields_are_flat_and_unions_are_kinds_or_parts():
    config = make_run_config(
        "dqn", fields={"head": Quantile(7), "core": LSTM(8), "windows": "sequences", "env": "Acrobot-v1"}
    )
    assert (config.agent.head.num_quantiles, config.agent.network.core.lstm_size, config.env) == (7, 8, "Acrobot-v1")
    assert (config.agent_name, config.preset) == ("dqn", "classic")
    assert make_run_config() == RunConfig()
    assert RunConfig().agent_name == "n_step_double_dqn"


def test_sequences_need_no_recurrent_core():
    config = make_run_config("dqn", fields={"windows": "sequences"})
    assert (leaves(config)["core"], leaves(config)["windows"]) == ("none", "sequences")


@given(run_configs())
def test_json_round_trip(config):
    written = to_json(config)
    assert written["format"] == 2
    assert from_json(json.loads(json.dumps(written))) == config


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", AGENTS)
def test_json_has_the_kind_of_every_union(name, preset):
    written = to_json(make_run_config(name, preset, {"steps": 10**7}))
    kinds = {union: found for union in unions() if (found := _found(written, union)) is not None}
    assert all(found["kind"] in unions()[union] for union, found in kinds.items())
    assert set(unions()) - set(kinds) <= {"core", "self_prediction", "resets", "target_role"}
    # The numbers of an agent that are not given are those of its preset.
    assert from_json({"format": 2, "agent_name": name, "preset": preset, "steps": 10**7}) == from_json(written)


def _found(written, name):
    if not isinstance(written, dict):
        return None
    below = (_found(value, name) for value in written.values())
    return written[name] if name in written else next((value for value in below if value is not None), None)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"stepz": 5}, ValueError, "^field of the config: got 'stepz'.*Did you mean 'steps'"),
        (
            {"agent": {"lerning_rate": 5}},
            ValueError,
            "^field of agent: got 'lerning_rate'.*Did you mean 'learning_rate'",
        ),
        ({"agent": {"head": {"kind": "scaler"}}}, ValueError, "^agent.head.kind: got 'scaler'.*'scalar'"),
        ({"loop": {"draw": {"batch_size": "5"}}}, TypeError, r"^loop.draw.batch_size: got '5' \(str\)"),
        ({"seed": "3"}, TypeError, "^seed: got '3'"),
        ({"agent_name": "x"}, ValueError, "^agent_name: got 'x'"),
        ({"preset": "x"}, ValueError, "^preset: got 'x'"),
        ({"format": 3}, ValueError, "^format: got 3; expected 2"),
        ({"loggers": ["cvs"]}, ValueError, "^loggers: got 'cvs'"),
    ],
)
def test_json_that_cannot_be_read(fields, kind, message):
    with pytest.raises(kind, match=message):
        from_json({"format": 2, **fields})
