"""A network, terms and an agent of a person's own in a run: trained, resumed, loaded, exported and compared."""

import functools
import inspect
import json
import sys

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyak
from polyak import networks
from polyak.agents import AGENTS, TermOutput, make_agent
from polyak.experiments import cli
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.own_parts import own_maker, own_terms, part_texts
from small_runs import FIELDS, arguments, config_of, interrupt_at, records, silent

SMALL = {name: value for name, value in FIELDS.items() if name != "hidden_sizes"}


def narrow(spec):
    """A network of one layer of three units, without the config's."""

    def encode(observation, is_training):
        return jnp.tanh(hk.Linear(3, name="narrow")(observation))

    def value(hidden, observation, is_training):
        return networks.ValueOutput(q_values=hk.Linear(spec.num_actions)(hidden))

    return networks.compose(encode, value, draws=False)


def calm(key, views):
    """Penalty on large values."""
    values = views.online.tm1.q_values
    return TermOutput(jnp.mean(values**2, axis=(1, 2)), {"size": jnp.mean(values)})


MODULE = "\n".join(
    [
        "import haiku as hk",
        "import jax.numpy as jnp",
        "import polyak",
        "from polyak import networks",
        "from polyak.agents import TermOutput",
        inspect.getsource(narrow),
        inspect.getsource(calm),
        'terms = ["calm=0.1*calm_agents:calm"]',
        'fields = {"learning_rate": 0.01}',
        'polyak.register_agent("calm_dqn", "dqn", fields, network="calm_agents:narrow", terms=terms)\n',
    ]
)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "calm_agents.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "calm_agents"
    sys.modules.pop("calm_agents", None)
    AGENTS.pop("calm_dqn", None)


def test_an_agent_of_a_module_is_trained_resumed_and_evaluated_by_name(module, tmp_path, capsys):
    folder = tmp_path / "run"
    words = arguments(["train", "calm_dqn", "--agent-module", module], folder)
    start = words.index("--hidden-sizes")
    del words[start : start + 2]  # the network has its own
    assert cli.run(words) == 0, capsys.readouterr().err
    found = records(folder)[-1]
    assert found["loss/calm"] > 0
    assert "size" in found
    run = polyak.load(folder)
    assert run.variables.params["torso/narrow"]["w"].shape == (4, 3)
    assert (run.config.agent_name, run.config.network) == ("calm_dqn", "calm_agents:narrow")
    AGENTS.pop("calm_dqn")
    sys.modules.pop(module)
    assert polyak.evaluate(folder, episodes=1)["episodes"] == 1  # the config names the module
    assert cli.run(["compare", str(folder)]) == 0
    assert "CartPole-v1" in capsys.readouterr().out


def test_objects_are_given_again_and_the_run_is_resumed_to_the_bit(tmp_path):
    network = functools.partial(narrow)
    given = {"<partial>": network}
    fields, objects = part_texts(network, {"calm": (0.1, calm)}, None)
    assert objects == given
    config = config_of("dqn", hidden_sizes=(120, 84), **fields)
    runs.train(config, tmp_path / "whole", silent, silent, given=given)
    assert runs.train(config, tmp_path / "parts", interrupt_at(300), silent, given=given) is None
    with pytest.raises(ValueError, match=r"network: the run was begun with partial, an object that no module has"):
        polyak.resume(tmp_path / "parts")
    run = polyak.resume(tmp_path / "parts", network=network)
    with (
        np.load(tmp_path / "parts" / "parameters.npz") as ours,
        np.load(tmp_path / "whole" / "parameters.npz") as theirs,
    ):
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs.files)
    exported = polyak.export(run, tmp_path / "export")
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["network"]["function"] == "<partial>"
    assert run.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)


def test_a_maker_of_ones_own_makes_the_agent(tmp_path):
    made = []

    def maker(config, spec, **options):
        made.append(options["total_learner_steps"])
        return make_agent(config, spec, **options)

    run = polyak.train(agent=maker, name="mine", out=tmp_path, **FIELDS)
    assert made[0] > 0
    assert (run.config.label, run.config.maker) == ("mine", "<maker>")
    with pytest.raises(ValueError, match=r"agent: the run was begun with maker"):
        polyak.load(tmp_path)
    assert polyak.load(tmp_path, agent=maker).evaluation == run.evaluation
    with pytest.raises(TypeError, match=r"agent: <lambda> made 3 \(int\); expected a polyak.agents.Agent"):
        polyak.train(agent=lambda config, spec, **options: 3, out=tmp_path / "x", **FIELDS)


@pytest.mark.parametrize("text", ["calm", "calm=0.1", "calm=x*math:sqrt", "1=0.1*math:sqrt", "calm=nan*math:sqrt"])
def test_terms_that_do_not_parse(text):
    with pytest.raises(ValueError, match=r"terms: got .*; expected NAME=WEIGHT\*MODULE:TERM"):
        own_terms(config_of(terms=(text,)))


def test_terms_from_python_that_are_none():
    with pytest.raises(TypeError, match=r"terms: got \[3\]; expected a dictionary of weights and terms"):
        part_texts(terms=[3])
    with pytest.raises(ValueError, match="terms: got two objects of the name <lambda>"):
        part_texts(terms={"a": (1.0, lambda key, views: None), "b": (1.0, lambda key, views: None)})
    assert own_maker(config_of()) is make_agent


def test_registering_agents():
    with pytest.raises(ValueError, match=r"name: got 'dqn'; .* that no other agent has"):
        polyak.register_agent("dqn", "double_dqn")
    with pytest.raises(ValueError, match="begins_with: got 'dqm'"):
        polyak.register_agent("mine", "dqm")
    with pytest.raises(ValueError, match="field: got 'lerning_rate'"):
        polyak.register_agent("mine", "dqn", {"lerning_rate": 1.0})
    assert "mine" not in AGENTS


def test_a_module_that_does_not_exist_is_told(capsys):
    assert cli.run(["train", "dqn", "--agent-module", "no_such_module"]) == 2
    assert "agent_module: got 'no_such_module', but there is no module" in capsys.readouterr().err


def test_a_linear_network_learns_as_it_does_by_hand(tmp_path):
    run = polyak.train("dqn", network=narrow, terms={"calm": (0.0, calm)}, out=tmp_path, **SMALL)
    weights = run.variables.params
    observation = np.array([0.1, -0.2, 0.3, 0.4], np.float32)
    hidden = np.tanh(observation @ np.asarray(weights["torso/narrow"]["w"]) + np.asarray(weights["torso/narrow"]["b"]))
    [last] = [module for module in weights if module != "torso/narrow"]
    values = hidden @ np.asarray(weights[last]["w"]) + np.asarray(weights[last]["b"])
    np.testing.assert_allclose(run.q_values(observation), values, rtol=1e-5)
    assert run.act(observation) == int(jax.numpy.argmax(values))
