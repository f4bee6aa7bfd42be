"""Trees of parts by the flat names of their leaves."""

import json

import pytest
from hypothesis import given

from config_tools import part_types, run_configs, unions
from polyak.agents import AgentConfig, Configs
from polyak.agents.config import (
    LSTM,
    Adam,
    Categorical,
    HLGauss,
    ImplicitQuantile,
    Munchausen,
    Network,
    Scalar,
)
from polyak.agents.fields import annotations_of, is_part_type, kinds_of
from polyak.agents.optimizer_parts import RMSProp
from polyak.agents.parts import bringers, from_json, leaves, part_of_kind, replace, to_json
from polyak.experiments.runs.config import RunConfig


def test_leaves_are_flat_and_a_union_is_its_kind():
    found = leaves(AgentConfig(head=HLGauss(num_atoms=7), network=Network(core=LSTM(burn_in=3))))
    assert (found["head"], found["num_atoms"], found["core"], found["burn_in"]) == ("hl_gauss", 7, "lstm", 3)
    assert "error" not in found
    assert "network" not in found


def test_leaf_names_are_unique_wherever_they_stand():
    fixed = [part for part in part_types() if part not in _kinds()]
    parts = {
        name for part in part_types() for name, annotation in annotations_of(part).items() if is_part_type(annotation)
    }
    names = [name for part in fixed for name in part.__dataclass_fields__ if part is RunConfig or name not in parts]
    assert len(names) == len(set(names))
    # A leaf of a union's kinds may stand in several kinds of that union, where it means the same, and nowhere else.
    for leaf, brought in bringers(RunConfig).items():
        assert len(brought) == 1, leaf
        assert leaf not in names
        assert leaf not in unions()


def _kinds():
    fields = [field for part in part_types() for field in part.__dataclass_fields__.values()]
    return [kind for field in fields for kind in field.metadata.get("kinds", {}).values()]


def test_replace_by_name_of_a_kind_by_a_part_and_below_it():
    config = Configs()
    assert replace(config, {}) is config
    changed = replace(config, {"head": "categorical", "num_atoms": 21, "batch_size": 4})
    assert (changed.agent.head, changed.loop.draw.batch_size) == (Categorical(num_atoms=21), 4)
    assert replace(config, {"head": HLGauss(num_atoms=5), "dueling": True}).agent.head == HLGauss(5, dueling=True)
    assert replace(changed, {"core": "lstm"}).agent.network.core == LSTM()
    assert replace(changed, {"core": LSTM(8)}).agent.network.core == LSTM(8)
    assert replace(replace(changed, {"core": "lstm"}), {"core": None}).agent.network.core is None
    assert config == Configs()


def test_a_part_of_another_kind_keeps_the_leaves_that_both_have():
    config = replace(AgentConfig(), {"dueling": True, "noisy_sigma": 0.2})
    assert replace(config, {"head": "quantile"}).head.dueling
    assert replace(config, {"head": "quantile"}).head.noisy_sigma == 0.2
    field = AgentConfig.__dataclass_fields__["head"]
    assert part_of_kind(field, Scalar(dueling=True), "hl_gauss") == HLGauss(dueling=True)
    assert part_of_kind(field, Scalar(dueling=True), "ensemble").num_members == 10
    assert part_of_kind(field, HLGauss(7, -1.0, 2.0), "categorical") == Categorical(7, -1.0, 2.0)
    assert part_of_kind(field, Scalar(error="huber"), "ensemble").error == "huber"


def test_a_number_that_means_another_thing_in_another_kind_is_not_kept():
    config = replace(AgentConfig(), {"optimizer": "rmsprop", "optimizer_epsilon": 0.01})
    assert replace(config, {"optimizer": "adam"}).optimizer == Adam()
    assert replace(config, {"optimizer": "adam", "optimizer_epsilon": 0.1}).optimizer == Adam(0.1)
    assert replace(config, {"optimizer": "rmsprop"}).optimizer == RMSProp(0.01)
    config = replace(AgentConfig(), {"head": "quantile", "num_quantiles": 200})
    assert replace(config, {"head": "implicit_quantile"}).head == ImplicitQuantile()


def test_the_leaves_that_are_kept_are_those_of_two_kinds_of_the_union():
    for part in part_types():
        for field in part.__dataclass_fields__.values():
            kinds = [kind for kind in kinds_of(field).values() if kind is not None]
            for name in field.metadata.get("keeps", ()):
                assert sum(name in kind.__dataclass_fields__ for kind in kinds) > 1, name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_atoms": 21},
            "^num_atoms: got 21, but head is 'scalar'; only categorical and hl_gauss have it. Try --head",
        ),
        ({"head": "quantile", "num_atoms": 21}, "^num_atoms: got 21, but head is 'quantile'; only categorical and"),
        ({"burn_in": 3}, "^burn_in: got 3, but core is 'none'; only lstm has it. Try --core lstm.$"),
        ({"double": True, "bootstrap": "munchausen"}, "^double: got True, but bootstrap is 'munchausen'; only greedy"),
        (
            {"sequence_length": 3},
            "^sequence_length: .* windows is 'transitions'; only sequences .* --windows sequences",
        ),
        ({"priority_exponent": 0.3}, "^priority_exponent: .*Try --sampling prioritized"),
        ({"lerning_rate": 1}, "^field: got 'lerning_rate'; it does not exist. Did you mean 'learning_rate'?"),
        ({"head": "categoricl"}, "^head: got 'categoricl'; expected one of scalar, .* Did you mean 'categorical'?"),
        ({"core": "gru"}, "^core: got 'gru'; expected one of none, lstm"),
    ],
)
def test_what_cannot_be_replaced(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(Configs(), fields)


def test_every_way_out_of_an_absent_part_works():
    for leaf, brought in bringers(Configs).items():
        ((union, kinds),) = brought.items()
        for kind in kinds:
            assert leaf in leaves(replace(Configs(), {union: kind}))
        others = set(unions()[union]) - set(kinds)
        for kind in others:
            way_out = f"--{union.replace('_', '-')} {kinds[0]}"
            with pytest.raises(ValueError, match=rf"^{leaf}: got 1, but {union} is '{kind}'; .*Try {way_out}\.$"):
                replace(Configs(), {union: kind, leaf: 1})


@given(run_configs())
def test_no_field_of_another_kind_exists_on_an_object(config):
    found = leaves(config)
    for leaf, brought in bringers(RunConfig).items():
        ((union, kinds),) = brought.items()
        assert (leaf in found) == (found[union] in kinds)


@given(run_configs())
def test_json_round_trip(config):
    written = json.loads(json.dumps(to_json(config)))
    assert from_json(RunConfig(), written) == config


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"agent": {"wings": 2}}, ValueError, "^field of agent: got 'wings'; expected one of network,"),
        ({"agent": {"head": {"kind": "scalar", "num_atoms": 3}}}, ValueError, "^field of agent.head: got 'num_atoms'"),
        ({"agent": {"head": {"kind": "scaler"}}}, ValueError, "^agent.head.kind: got 'scaler'.*Did you mean 'scalar'"),
        (
            {"agent": {"head": {"num_atoms": 3}}},
            TypeError,
            '^agent.head: got .*; expected an object with "kind": scalar',
        ),
        ({"agent": {"head": None}}, TypeError, "^agent.head: got None; expected an object"),
        (
            {"agent": {"network": {"core": {"kind": "lstm", "lstm_size": 0}}}},
            ValueError,
            "^agent.network.core.lstm_size: got 0",
        ),
        ({"agent": {"network": 3}}, TypeError, "^agent.network: got 3; expected an object of fields"),
        (
            {"loop": {"draw": {"batch_size": "5"}}},
            TypeError,
            r"^loop.draw.batch_size: got '5' \(str\); expected an integer",
        ),
        (
            {"loop": {"draw": {"n_steps": "often"}}},
            ValueError,
            "^loop.draw.n_steps: got 'often'; expected a number, linear",
        ),
        ([], TypeError, r"^config: got \[\]; expected an object of fields"),
    ],
)
def test_json_that_cannot_be_read_is_named_by_its_path(values, kind, message):
    with pytest.raises(kind, match=message):
        from_json(Configs(), values)


def test_json_of_a_part_that_is_not_there_is_null():
    assert to_json(AgentConfig())["network"]["core"] is None
    assert from_json(AgentConfig(network=Network(core=LSTM())), {"network": {"core": None}}).network.core is None
    assert from_json(AgentConfig(), {"bootstrap": {"kind": "munchausen"}}).bootstrap == Munchausen()
