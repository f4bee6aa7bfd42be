"""Warm starts: what ``initial`` may name, what begins from it, and what it refuses."""

import dataclasses
import pickle
import shutil
import zipfile

import jax
import numpy as np
import optax
import pytest

import polyak
from polyak.agents import AgentConfig, make_optimizer
from polyak.agents.optimizer_parts import SGD, Adam, AdamW, RMSProp
from polyak.experiments import cli
from polyak.experiments.environments.lanes import Environments
from polyak.experiments.runs import build, export, files
from polyak.experiments.runs import train as runs
from small_runs import arguments, begin, config_of, records

AVERAGED = {"target": "incremental:0.1", "average": "incremental:0.1"}


@pytest.fixture(scope="module")
def warm(first, tmp_path_factory):
    """A run of the same config that begins where the first one ended."""
    config = config_of(seed=3, initial=str(first.folder), **AVERAGED)
    return polyak.train(config=config, out=tmp_path_factory.mktemp("warm") / "warm")


def silent(_):
    pass


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run, with its two exports beside it."""
    folder = tmp_path_factory.mktemp("warm") / "first"
    run = polyak.train(config=config_of(seed=3, **AVERAGED), out=folder)
    polyak.export(run, folder / "export")
    polyak.export(run, folder / "npz", format="npz")
    return run


def same(tree, other):
    leaves, others = jax.tree.leaves(tree), jax.tree.leaves(other)
    return [np.asarray(a).tobytes() for a in leaves] == [np.asarray(b).tobytes() for b in others] and len(leaves) > 0


def template(run):
    return {"params": run.variables.params, "state": run.variables.state}


@pytest.mark.parametrize(
    "name", ["", "parameters.npz", "export", "export/parameters.safetensors", "npz", "npz/parameters.npz"]
)
def test_a_run_an_export_or_a_file_of_either(first, name):
    trees = export.load_initial(str(first.folder / name), template(first))
    assert same(trees["params"], first.variables.params)
    assert trees["state"] == {}


def test_module_state_comes_along(tmp_path):
    trees = {"params": {"w": np.arange(3.0, dtype=np.float32)}, "state": {"norm": {"mean": np.ones(2, np.float32)}}}
    files.save_variables(tmp_path / "parameters.npz", trees)
    found = export.load_initial(str(tmp_path), trees)
    assert same(found, trees)
    assert found["state"]["norm"]["mean"].tolist() == [1.0, 1.0]


def test_network_and_targets_start_as_the_first_run_ended_and_the_rest_is_new(first, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "host_loop", lambda *arguments, **_: seen.append(arguments[2:]) or [])
    config = dataclasses.replace(first.config, initial=str(first.folder))
    result = runs.train(config, tmp_path / "run", silent, silent)
    (replay, _, carry), parameters = seen[0], first.variables.params
    built = build.build(first.config)
    _, _, cold = begin(first.config, built.environment, built.agent, seed=first.config.seed)
    assert same(carry.agent.params, parameters)
    assert not same(cold.agent.params, parameters)
    for name in ("q", "average"):
        assert same(carry.agent.targets[name].params, parameters)
        assert int(carry.agent.targets[name].count) == 0
    assert same(carry.agent.optimizer_state, cold.agent.optimizer_state)
    assert same((carry.key, carry.timestep), (cold.key, cold.timestep))
    assert (carry.steps, carry.learner_steps, replay.size(carry.replay)) == (0, 0, 0)
    # Nothing was learnt in between, and the seed is the first run's: so it plays as the first run did at its end.
    assert result == first.evaluation
    assert (tmp_path / "run" / "parameters.npz").read_bytes() == (first.folder / "parameters.npz").read_bytes()


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(), RMSProp(), SGD()], ids=lambda part: type(part).__name__)
def test_a_new_optimizer_state_does_not_depend_on_the_parameters(optimizer):
    made = make_optimizer(AgentConfig(optimizer=optimizer, max_gradient_norm=1.0), 100)
    states = [made.init({"w": np.full(3, value, np.float32)}) for value in (0.0, 5.0)]
    assert same(*states) or not jax.tree.leaves(states)
    assert optax.tree.norm(jax.tree.map(np.asarray, states[0])) == 0


@pytest.mark.slow
def test_learning_goes_on_from_there(first, warm):
    assert warm.config == dataclasses.replace(first.config, initial=str(first.folder))
    # The first 50 steps are random and the same in both; what is learnt from them is not.
    assert warm.metrics["returns"][0] == first.metrics["returns"][0]
    assert warm.metrics["loss"][0] != first.metrics["loss"][0]
    assert not same(warm.variables.params, first.variables.params)


@pytest.mark.slow
def test_a_resumed_warm_start_needs_its_source_no_more(first, warm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first.folder, "source")

    def kill(record):
        if record["step"] == 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.train(dataclasses.replace(first.config, initial="source"), tmp_path / "killed", kill, silent)
    # One that was killed before its first checkpoint begins again, from the source and from nothing else.
    (tmp_path / "begun").mkdir()
    shutil.copy("killed/config.json", "begun")
    runs.resume(tmp_path / "begun", silent, silent)
    (tmp_path / "begun" / "checkpoints").rename("kept")
    (tmp_path / "begun" / "evaluation.json").unlink()
    shutil.rmtree("source")
    with pytest.raises(ValueError, match="initial: source does not exist"):
        runs.resume(tmp_path / "begun", silent, silent)
    runs.resume(tmp_path / "killed", silent, silent)
    for name in ("begun", "killed"):
        assert records(tmp_path / name) == records(warm.folder)
        assert (tmp_path / name / "parameters.npz").read_bytes() == (warm.folder / "parameters.npz").read_bytes()
    assert polyak.load("killed").config.initial == "source"


class Payload:
    """Object whose pickle would run code."""

    def __reduce__(self):
        return (open, ("was-run", "w"))


def _unfinished(path):
    path.mkdir()
    (path / "config.json").write_text("{}")


def _object_array(path):
    np.savez(path, **{"params/head/q_values/b": np.array([Payload()], dtype=object)})


def _zip_of_a_pickle(path):  # as torch.save writes one
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))


def _pickle(path):
    path.write_bytes(pickle.dumps(Payload()))


BAD = {
    "nothing": (None, "source", " does not exist. Give a finished run, an export"),
    "no run": (lambda path: path.mkdir(), "source", " holds neither a run nor an export"),
    "an unfinished run": (_unfinished, "source", ": the run has not ended.*Finish it with: polyak resume source"),
    "a pickle": (_pickle, "source.pkl", ": got .pkl; expected .npz or .safetensors.*pickles.*are never loaded"),
    "PyTorch's": (_pickle, "source.pt", ": got .pt; expected .npz or .safetensors.*are never loaded"),
    "PyTorch's, by another name": (_pickle, "source.pth", ": got .pth; expected"),
    "a pickle named npz": (
        _pickle,
        "source.npz",
        r": cannot be read as npz of plain arrays \(no pickle",
    ),
    "a pickle named safetensors": (_pickle, "source.safetensors", ": cannot be read as safetensors of plain arrays"),
    "an array of objects": (_object_array, "source.npz", ": cannot be read as npz of plain arrays"),
    "a pickle in a zip": (_zip_of_a_pickle, "source.npz", ": cannot be read as npz of plain arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_start_a_run_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, name, message = BAD[case]
    if make:
        make(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=f"initial: {name}{message}"):
        export.load_initial(name, {"params": {"w": np.zeros(2, np.float32)}, "state": ()})
    assert sorted(tmp_path.iterdir()) == before  # no pickle was run


def test_it_is_refused_before_the_first_step_and_before_a_folder_is_made(first, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _pickle(tmp_path / "model.pt")
    monkeypatch.setattr(Environments, "step", lambda *_: pytest.fail("a step was taken"))
    for initial, message in {
        "model.pt": "polyak: initial: model.pt: got .pt; expected .npz or .safetensors",
        str(first.folder): "params/head/q_values/w: got float32(8, 2); the config's network has float32(16, 2)",
    }.items():
        assert cli.run(arguments(["train"], "out", initial=initial, hidden_sizes=16)) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_path_in_a_config_is_text(tmp_path):
    with pytest.raises(TypeError, match=r"initial: got PosixPath.*expected a string"):
        polyak.experiments.RunConfig(initial=tmp_path)
    with pytest.raises(TypeError, match=r"initial: got 5 \(int\)"):
        polyak.train(initial=5)
