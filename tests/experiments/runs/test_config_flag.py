"""``--config FILE``: a run that begins with the settings of another run's ``config.json``."""

import json

import pytest

import golden
import polyak
from polyak.experiments import cli
from polyak.experiments.runs.config import from_json, make_run_config, to_json
from polyak.experiments.runs.flags import parse_run
from polyak.experiments.runs.folders import read_config
from small_runs import arguments, records


def parsed(*words):
    return parse_run(words, cli.TrainCommand, "")[0]


@pytest.fixture
def write(tmp_path):
    """Write a ``config.json`` of a config as JSON, and return its path."""

    def written(config, **versions):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"id": "1", "config": config, "versions": versions}))
        return str(path)

    return written


OTHER = make_run_config(
    "rainbow",
    "minatar",
    {
        "num_atoms": 21,
        "hidden_sizes": (3, 4),
        "env_kwargs": '{"a": 1}',
        "loggers": (),
        "evaluate_every": 7,
        "name": "x",
    },
)


@pytest.mark.parametrize("config", [make_run_config(), OTHER, make_run_config("bbf", fields={"seed": 3})])
def test_the_config_of_a_file_is_read_whole(config, write):
    path = write(to_json(config))
    assert parsed("--config", path) == config
    assert parsed(config.agent_name, "--config", path, "--preset", config.preset) == config


def test_flags_replace_the_settings_of_a_file(write):
    path = write(to_json(OTHER))
    changed = parsed("--config", path, "--num-atoms", "11", "--seed", "5", "--no-double", "--evaluate-every", "None")
    assert changed == make_run_config(
        "rainbow",
        "minatar",
        {
            "num_atoms": 11,
            "hidden_sizes": (3, 4),
            "env_kwargs": '{"a": 1}',
            "loggers": (),
            "name": "x",
            "seed": 5,
            "double": False,
        },
    )
    other_head = parsed("--config", path, "--head", "quantile", "--num-quantiles", "7").agent.head
    assert (other_head.num_quantiles, other_head.dueling) == (7, True)  # kept, as everywhere


def test_a_run_of_a_file_has_the_same_config_and_metrics_to_the_bit(tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    assert cli.run(arguments(["train", "dqn"], first, seed=3, target="incremental:0.01", num_envs=2)) == 0
    assert cli.run(["train", "--config", str(first / "config.json"), "--out", str(second), "--quiet"]) == 0
    assert read_config(second) == read_config(first)
    assert records(second) == records(first)
    run = polyak.train(config=first / "config.json", out=third)
    assert run.config == read_config(first)
    assert records(third) == records(first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["dqn"],
            r"^config: \S+config.json has the agent 'rainbow', and got 'dqn' as well; .* Leave out dqn, or --con",
        ),
        (
            ["--preset", "atari"],
            r"^config: .* has the preset 'minatar', and got 'atari'.* Leave out --preset atari, or",
        ),
        (["--num-quantiles", "3"], r"^num_quantiles: got '3', but head is 'categorical'"),
    ],
)
def test_what_a_file_has_already_is_not_given_twice(words, message, write):
    agent, options = (words, []) if words == ["dqn"] else ([], words)
    with pytest.raises(ValueError, match=message):
        parsed(*agent, "--config", write(to_json(OTHER)), *options)


def test_a_file_that_cannot_be_read_is_named_with_the_path_of_the_field(write, tmp_path):
    good = to_json(OTHER)
    bad_head = {**good, "agent": {**good["agent"], "head": {"kind": "categoricl"}}}
    bad_size = {**good, "loop": {**good["loop"], "draw": {**good["loop"]["draw"], "batch_size": 0}}}
    cases = {
        r"config.json: agent.head.kind: got 'categoricl'; .*Did you mean 'categorical'": bad_head,
        r"config.json: loop.draw.batch_size: got 0; expected an integer >= 1": bad_size,
        r"config.json: format: got 3; expected 2": {**good, "format": 3},
        r"config.json: field of the config: got 'stepz'; .*Did you mean 'steps'": {**good, "stepz": 3},
        r"config.json: the run pretrains an encoder, and has no agent": {"method": "byol", "format": 2},
        r'config.json: got no "config"; expected the config.json of a run': None,
    }
    for message, config in cases.items():
        path = write(config)
        with pytest.raises(ValueError, match=f"^config: {tmp_path}/{message}"):
            parsed("--config", path)
    with pytest.raises(ValueError, match=r"the run was made by polyak 9.0, a newer version, .*Upgrade polyak"):
        parsed("--config", write({**good, "format": 3}, polyak="9.0"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=rf"^config: {tmp_path}/config.json: got no JSON \("):
        parsed("--config", str(tmp_path / "config.json"))
    with pytest.raises(ValueError, match=rf"^config: {tmp_path} is a folder; .*Try --config {tmp_path}/config.json"):
        parsed("--config", str(tmp_path))
    with pytest.raises(ValueError, match=r"^config: no file nowhere; expected the config.json of a run"):
        parsed("--config", "nowhere")
    with pytest.raises(ValueError, match=r"^config: got no value after --config; expected one"):
        parsed("--config")


def test_a_file_of_version_0_1_0_is_converted(write):
    flat = golden.configurations()["c51"]["fields"]
    config = parsed("--config", write({"env": "CartPole-v1", "seed": 3, "agent": {"name": "c51", **flat}}))
    assert (config.agent_name, config.seed) == ("c51", 3)
    assert config.agent.head.num_atoms == flat["num_atoms"]


@pytest.mark.parametrize(
    ("field", "value", "instead"),
    [
        ("env", "<MyEnv>", ["--env", "Acrobot-v1"]),
        ("wrappers", ["<wrap>"], ["--wrapper", "my_module:wrap"]),
        ("network", "<network>", ["--network", "none"]),
        ("terms", ["mine=0.5*<term>"], ["--terms", "mine=0.5*my_module:term"]),
        ("maker", "<maker>", ["--maker", "none"]),
    ],
)
def test_objects_of_a_python_program_are_refused_with_the_reason(field, value, instead, write):
    path = write({**to_json(OTHER), field: value})
    with pytest.raises(
        ValueError, match=rf"^{field}: got '<\w+>', an object that a Python program gave .*--{field}, or"
    ):
        parsed("--config", path)
    assert parsed("--config", path, *instead) is not None
    assert from_json({**to_json(OTHER), field: value}) is not None  # a program can give it again


def test_an_empty_path_trains_no_other_config():
    with pytest.raises(ValueError, match=r"^config: got an empty path; expected the config.json of a run"):
        parsed("--config=")


def test_a_file_of_deeply_nested_lists_is_an_error_of_the_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"config.json: got no JSON"):
        parsed("--config", str(path))
