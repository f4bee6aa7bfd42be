"""Exports: what is written, that it comes back to the bit, the documented lines that act with it, what is refused."""

import hashlib
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyak
from polyak import networks
from polyak.agents import make_configs
from polyak.agents.agent_network import network_arguments
from polyak.experiments import cli
from polyak.experiments.runs.config import from_json
from polyak.replay.types import EnvironmentSpec
from small_runs import config_of

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "export.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return polyak.train(config=config_of(hidden_sizes=(8, 6)), out=tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    config = config_of(seed=2, normalize_observations=True, normalize_rewards=True)
    return polyak.train(config=config, out=tmp_path_factory.mktemp("normalised") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folders of its exports, by format; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    return {kind: polyak.export(run, folder / kind, format=kind) for kind in ("safetensors", "npz")}


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_what_is_read_back_is_what_was_trained_to_the_bit(run, exported, kind):
    manifest, arrays = polyak.load_exported(str(exported[kind]))
    assert sorted(path.name for path in exported[kind].iterdir()) == ["manifest.json", f"parameters.{kind}"]
    expected = {
        f"params/{module}/{name}": leaf
        for module, leaves in run.variables.params.items()
        for name, leaf in leaves.items()
    }
    assert arrays.keys() == expected.keys()
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert array.tobytes() == np.asarray(expected[name]).tobytes()
        assert array.flags.writeable
    entries = {entry["name"]: entry for entry in manifest["arrays"]}
    w = np.asarray(run.variables.params["torso/mlp/~/linear_1"]["w"])
    assert entries["params/torso/mlp/~/linear_1/w"] == {
        "name": "params/torso/mlp/~/linear_1/w",
        "shape": [8, 6],
        "dtype": "float32",
        "sha256": hashlib.sha256(w.tobytes()).hexdigest(),
    }


def test_the_manifest_says_what_the_arrays_are(run, exported):
    manifest = json.loads((exported["npz"] / "manifest.json").read_text())
    assert (manifest["format"], manifest["polyak"], manifest["file"]) == (1, polyak.__version__, "parameters.npz")
    assert from_json(manifest["config"]) == run.config
    assert (manifest["config"]["agent_name"], manifest["config"]["env"]) == ("n_step_double_dqn", "CartPole-v1")
    assert (manifest["observation"], manifest["num_actions"]) == ({"shape": [4], "dtype": "float32"}, 2)
    assert manifest["evaluation"] == run.evaluation
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["network"]["arguments"]["hidden_sizes"] == [8, 6]


@pytest.mark.parametrize("kind", ["numpy", "numpy, normalised", pytest.param("haiku", marks=pytest.mark.slow)])
def test_the_documented_lines_act_as_the_run_does(kind, run, normalised, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = normalised if "normalised" in kind else run
    monkeypatch.setattr(polyak, "train", lambda **_: trained, raising=False)
    namespace = {"__name__": "documentation"}
    exec(compile(SNIPPETS[kind == "haiku"], "documentation", "exec"), namespace)
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    expected = [trained.act(observation) for observation in observations]
    if kind == "haiku":
        got = namespace["greedy_actions"](observations).tolist()
    else:
        got = [namespace["greedy"](observation) for observation in observations]
    assert got == expected
    assert set(expected) == {0, 1}


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_statistics_of_a_normalised_run_are_exported_to_the_bit(normalised, tmp_path, kind):
    arrays = polyak.load_exported(polyak.export(normalised, tmp_path / "export", format=kind)).arrays
    with np.load(normalised.folder / "parameters.npz") as kept:
        assert kept["normalization/observation/mean"].dtype == np.float64
        assert {name: array.tobytes() for name, array in arrays.items()} == {k: kept[k].tobytes() for k in kept.files}


@pytest.mark.parametrize("dueling", [False, True], ids=["plain", "dueling"])
@pytest.mark.parametrize("shape", [(4,), (36, 40, 2)], ids=["vector", "image"])
@pytest.mark.parametrize("hidden_sizes", [(7,), (7, 5)], ids=str)
def test_the_words_name_every_layer_and_its_size(dueling, shape, hidden_sizes):
    spec = EnvironmentSpec(jax.ShapeDtypeStruct(shape, jnp.uint8), num_actions=3)
    configs = make_configs("dqn", fields={"dueling": dueling, "hidden_sizes": hidden_sizes, "activation": "tanh"})
    arguments = json.loads(json.dumps(network_arguments(configs.agent, spec)))
    words = networks.value_network_in_words(**arguments)
    observation = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    params = jax.eval_shape(networks.value_network(**arguments).init, jax.random.key(0), observation)
    named = dict(re.findall(r"([\w/~]+) \((\d+(?: of \d+x\d+)?)", words))
    expected = {}
    for module, leaves in params.items():
        *kernel, _, out = leaves["w"].shape
        expected[module] = f"{out} of {kernel[0]}x{kernel[1]}" if kernel else str(out)
    assert named == expected
    assert ("tanh" in words) == (len(hidden_sizes) > 0)
    assert ("mean(advantage)" in words) == dueling


@pytest.mark.slow
def test_from_the_command_line(run, tmp_path, capsys):
    copy = shutil.copytree(run.folder, tmp_path / "run")
    assert cli.run(["export", str(copy)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [
        f"exported  {copy}/export/manifest.json",
        f"exported  {copy}/export/parameters.safetensors",
    ]
    assert cli.run(["export", str(copy), "--out", str(tmp_path / "npz"), "--format", "npz"]) == 0
    assert polyak.load_exported(tmp_path / "npz").manifest["file"] == "parameters.npz"
    assert polyak.load(copy).evaluation == run.evaluation  # the export in it does not disturb the run
    capsys.readouterr()
    assert cli.run(["evaluate", str(tmp_path / "npz")]) == 2
    assert "holds an export, not a run. Read it with polyak.load_exported" in capsys.readouterr().err


def _manifest(**changed):
    def change(folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return change


def _entries(change):
    def changed(folder):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest["arrays"])
        path.write_text(json.dumps(manifest))

    return changed


def _flip(folder):
    path = folder / "parameters.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _linked(name):
    def link(folder):
        (folder / name).rename(folder.parent / f"elsewhere-{name}")
        (folder / name).symlink_to(folder.parent / f"elsewhere-{name}")

    return link


def _named(**changed):
    return _entries(lambda entries: entries[0].update(changed))


BAD = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no export found"),
    "no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "got no JSON"),
    "no format": (_manifest(format=None), "format: got None"),
    "a newer format": (
        _manifest(format=2, polyak="9.1"),
        r"format: got 2, written by polyak 9.1; polyak .* reads 1",
    ),
    "a path that climbs": (_manifest(file="../parameters.npz"), r"file: got '../parameters.npz'; expected parameters."),
    "an absolute path": (_manifest(file="/etc/passwd"), "file: got '/etc/passwd'; expected parameters.safetensors or"),
    "a pickle": (_manifest(file="parameters.pkl"), "file: got 'parameters.pkl'; expected"),
    "no file": (_manifest(file=["parameters.npz"]), "file: got .*expected"),
    "a file that is not there": (_manifest(file="parameters.npz"), "parameters.npz: cannot be read"),
    "a linked file": (_linked("parameters.safetensors"), "parameters.safetensors: is a symbolic link"),
    "a linked manifest": (_linked("manifest.json"), "manifest.json: is a symbolic link"),
    "arrays that are no list": (_manifest(arrays=5), "arrays: expected a list of name, shape, dtype and sha256"),
    "an entry without checksum": (
        _entries(lambda entries: entries[0].pop("sha256")),
        "arrays: expected a list of name",
    ),
    "an entry twice": (_entries(lambda entries: entries.append(entries[0])), "arrays: a name is listed twice"),
    "an array too many": (_entries(lambda entries: entries.pop(0)), "params/head/q_values/b is only in the file"),
    "an array too few": (
        _entries(lambda entries: entries.append({**entries[0], "name": "params/x"})),
        "params/x is only in the manifest",
    ),
    "another shape": (_named(shape=[3]), r"params/head/q_values/b: got shape \[2\]; the manifest has \[3\]"),
    "another dtype": (_named(dtype="int32"), "params/head/q_values/b: got dtype float32; the manifest has int32"),
    "another checksum": (_named(sha256="0"), "params/head/q_values/b: got sha256 .*; the manifest has 0"),
    "a flipped bit": (_flip, "got sha256 .*The file was changed or damaged; export the run again"),
    "a cut file": (
        lambda folder: (folder / "parameters.safetensors").write_bytes(b"\x08"),
        r"cannot be read as safetensors of plain arrays \(no pickle is ever loaded\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_was_changed_is_refused(exported, tmp_path, case):
    folder = shutil.copytree(exported["safetensors"], tmp_path / "export")
    polyak.load_exported(folder)
    change, message = BAD[case]
    change(folder)
    with pytest.raises(ValueError, match=message):
        polyak.load_exported(folder)


def test_an_export_of_a_run_that_cannot_be(run, tmp_path):
    with pytest.raises(ValueError, match="no run found"):
        polyak.export(tmp_path / "nowhere", tmp_path / "out")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(run.folder / "config.json", unfinished)
    with pytest.raises(ValueError, match="the run has not ended"):
        polyak.export(unfinished, tmp_path / "out")
    with pytest.raises(ValueError, match="format: got 'pt'; expected one of safetensors, npz"):
        polyak.export(run, tmp_path / "out", format="pt")
    with pytest.raises(ValueError, match=r"run holds a run. Give another folder"):
        polyak.export(run, run.folder)
    (tmp_path / "model.pkl").touch()
    with pytest.raises(ValueError, match=r"is a file; expected the folder of a run.*pickles are never loaded"):
        polyak.load(tmp_path / "model.pkl")
    assert not (tmp_path / "out").exists()
    assert not list(run.folder.glob("manifest.json"))
