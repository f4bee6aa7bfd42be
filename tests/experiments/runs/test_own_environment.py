"""Environments of a person's own: a class, a function or an instance, arguments, wrappers, and runs with them."""

import contextlib
import functools
import inspect
import json
import pickle
import sys

import gymnasium as gym
import numpy as np
import pytest

import polyak
from polyak.__main__ import main
from polyak.experiments.environments.make import given_environment, make, make_one, recipe
from polyak.experiments.environments.objects import imported, resolve, text_of
from polyak.experiments.environments.types import EnvironmentFailure
from polyak.experiments.runs import train as runs
from scripted_environments import Growing
from small_runs import config_of

SMALL = {"steps": 200, "learning_starts": 50, "hidden_sizes": (4,), "evaluation_episodes": 2, "log_every": 100}


class Corridor(gym.Env):
    """An episode of so many steps, each worth 1; the observation tells the time."""

    observation_space, action_space = gym.spaces.Box(0, 99, (1,), np.float32), gym.spaces.Discrete(2, start=3)

    def __init__(self, size=5):
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert action in self.action_space
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t >= self.size, False, {}


def plus_one(env):
    return gym.wrappers.TransformReward(env, lambda reward: reward + 1)


def doubled(env):
    return gym.wrappers.TransformReward(env, lambda reward: 2 * reward)


MODULE = "\n".join(
    [
        "import gymnasium as gym",
        "import numpy as np",
        *(inspect.getsource(each) for each in (Corridor, plus_one, doubled)),
        'gym.register("Corridor-v0", entry_point=Corridor)',
        "number = 3\n",
    ]
)


@pytest.fixture
def corridors(tmp_path, monkeypatch):
    """A module in the working directory, which is not on the path."""
    (tmp_path / "corridors.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield tmp_path
    for name in ("corridors", "broken"):
        sys.modules.pop(name, None)
    gym.registry.pop("Corridor-v0", None)


def returns_of(folder):
    return json.loads((folder / "evaluation.json").read_text())["returns"]


@pytest.mark.parametrize("env", ["corridors:Corridor", pytest.param("corridors:Corridor-v0", marks=pytest.mark.slow)])
def test_the_command_line_finds_a_module_of_the_working_directory(corridors, env, monkeypatch):
    words = [
        "--steps",
        "200",
        "--learning-starts",
        "50",
        "--hidden-sizes",
        "4",
        "--evaluation-episodes",
        "2",
        "--quiet",
        "--out",
        "run",
    ]
    given = ["--env-kwargs", '{"size": 3}', "--wrapper", "corridors:plus_one", "corridors:doubled"]
    monkeypatch.setattr(sys, "argv", ["polyak", "train", "dqn", "--env", env, *given, *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert returns_of(corridors / "run") == [12.0, 12.0]  # 3 steps, each 2 * (1 + 1)
    written = json.loads((corridors / "run" / "config.json").read_text())["config"]
    assert (written["env"], written["env_kwargs"]) == (env, '{"size": 3}')
    monkeypatch.setattr(sys, "argv", ["polyak", "evaluate", "run", "--episodes", "1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0


@pytest.mark.slow
def test_a_class_and_an_instance_and_a_function_train(tmp_path):
    size = 4
    for number, (env, kwargs) in enumerate([(Corridor, {"env_kwargs": {"size": 4}}), (Corridor(size), {})]):
        run = polyak.train("dqn", env=env, num_envs=2, out=tmp_path / str(number), **SMALL, **kwargs)
        assert run.evaluation["returns"] == [4.0, 4.0]
        assert polyak.evaluate(run, episodes=1)["returns"] == [4.0]
        assert run.act([1.0]) in (3, 4)
    local = polyak.train("dqn", env=lambda: Corridor(size), wrappers=[plus_one], out=tmp_path / "local", **SMALL)
    assert local.evaluation["returns"] == [8.0, 8.0]
    assert local.config.env == "<lambda>"


def test_an_instance_is_copied_and_stays_as_it_was(tmp_path):
    env = Corridor(3)
    polyak.train("dqn", env=env, out=tmp_path, **SMALL)
    assert not hasattr(env, "t")


def test_objects_that_no_module_has_are_given_again(tmp_path):
    make_corridor = functools.partial(Corridor, 3)
    folder = tmp_path / "run"
    run = polyak.train("dqn", env=make_corridor, out=folder, **SMALL)
    assert run.config.env == "<partial>"
    message = r"env: the run was begun with partial, an object that no module has.*polyak.resume\(folder, env=partial\)"
    for read in (polyak.load, polyak.evaluate):
        with pytest.raises(ValueError, match=message):
            read(folder)
    assert polyak.load(folder, env=make_corridor).evaluation == run.evaluation
    assert polyak.evaluate(folder, env=make_corridor, episodes=1)["returns"] == [3.0]
    with pytest.raises(ValueError, match=r"no module has, and got <lambda>"):
        polyak.load(folder, env=lambda: Corridor(3))
    with pytest.raises(ValueError, match="object: got 'envs'; expected one of env, wrappers"):
        polyak.load(folder, envs=3)


def test_an_interrupted_run_on_an_object_is_resumed_to_the_bit(tmp_path):
    make_corridor = functools.partial(Corridor, 3)
    whole = polyak.train("dqn", env=make_corridor, out=tmp_path / "whole", **SMALL)
    with pytest.raises(KeyboardInterrupt):
        polyak.train("dqn", env=functools.partial(Interrupting, 3), out=tmp_path / "parts", **SMALL)
    with pytest.raises(ValueError, match="env: the run was begun with partial"):
        polyak.resume(tmp_path / "parts")
    parts = polyak.resume(tmp_path / "parts", env=make_corridor)
    np.testing.assert_equal(parts.metrics["returns"], whole.metrics["returns"])
    np.testing.assert_equal(parts.metrics["loss"], whole.metrics["loss"])


class Interrupting(Corridor):
    steps = 0

    def step(self, action):
        type(self).steps += 1
        if type(self).steps == 100:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)
        return super().step(action)


def test_worker_processes_make_classes_and_not_what_cannot_be_sent():
    found = recipe("<Corridor>", '{"size": 2}', given={"<Corridor>": Corridor})
    environments = make(recipe("gymnasium.envs.classic_control:CartPoleEnv"), 2, workers=1)
    environments.reset()
    assert environments.step(np.array([0, 1])).r_t.tolist() == [1.0, 1.0]
    environments.close()
    with pytest.raises(ValueError, match=r"workers: the environment cannot be sent to other processes .*or workers=0"):
        make(found._replace(target=lambda size: Corridor(size)), workers=1)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_what_an_environment_keeps_between_episodes_is_part_of_a_checkpoint(workers, tmp_path):
    def interrupting(carry, record):
        if record["step"] == 100:
            raise RuntimeError("stop here")

    fields = {**SMALL, "env": Growing, "num_envs": 2, "workers": workers, "checkpoint_every": 50}
    whole = polyak.train("dqn", out=tmp_path / "whole", **fields)
    with pytest.raises(RuntimeError, match="stop here"):
        polyak.train("dqn", out=tmp_path / "parts", callbacks=[interrupting], **fields)
    parts = polyak.resume(tmp_path / "parts")
    assert parts.metrics["lengths"].tolist() == whole.metrics["lengths"].tolist()
    assert max(whole.metrics["lengths"]) > 8
    np.testing.assert_equal(parts.metrics["loss"], whole.metrics["loss"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_state_that_cannot_be_saved_is_told_when_it_is_lost(workers):
    def environments():
        found = recipe("scripted_environments:Secretive")
        return make(found, workers=workers)

    with contextlib.closing(environments()) as before:
        before.reset()
        snapshot = before.snapshot()
    lost = pytest.warns(UserWarning, match=r"environments \[0\]: the state kept between episodes is lost")
    with contextlib.closing(environments()) as after, lost:
        after.restore(snapshot)


class Unseeded(Corridor):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.float32([np.random.default_rng().random()]), {}


def test_an_environment_that_ignores_its_seed_is_told(tmp_path):
    fields = {name: value for name, value in SMALL.items() if name != "steps"}
    for env, ignores in ((Unseeded, True), (Corridor, False)):
        given = {"<env>": functools.partial(env, 3)}
        said = []
        config = config_of("dqn", steps=200, env="<env>", **fields)
        runs.train(config, tmp_path / env.__name__, lambda record: None, said.append, given=given)
        assert any("the environment ignores its seed" in text for text in said) == ignores


def test_a_run_is_pickled_and_acts_again(tmp_path):
    run = polyak.train("dqn", out=tmp_path, **SMALL)
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    actions, values = run.act(observations), run.q_values(observations)
    again = pickle.loads(pickle.dumps(run))
    assert again.act(observations).tolist() == actions.tolist() == values.argmax(axis=1).tolist()
    assert [run.act(one) for one in observations] == actions.tolist()
    np.testing.assert_allclose(run.q_values(observations[0]), values[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ([0.0, 0.0, 0.0], r"observation: got shape \(3,\); expected \(4,\).*or a batch on a first axis"),
        ([0.0, 0.0, 0.0, float("nan")], "observation: got .*, which is not finite"),
        (["a", "b", "c", "d"], "observation: got dtype <U1; expected float32"),
    ],
)
def test_bad_observations_are_refused(tmp_path_factory, observation, message):
    run = _run(tmp_path_factory.getbasetemp() / "run-for-observations")
    with pytest.raises(ValueError, match=message):
        run.act(observation)


@functools.cache
def _run(folder):
    return polyak.train("dqn", out=folder, **SMALL)


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        (3, TypeError, r"env: got 3 \(int\); expected the id of a registered environment"),
        ("nowhere_to_be_found:Env", ValueError, r"there is no module 'nowhere_to_be_found' in the working directory"),
        ("collections:OrderedDic", ValueError, r"collections has no 'OrderedDic'. Did you mean 'OrderedDict'\?"),
        ("collections:OrderedDict", TypeError, r"made OrderedDict.* \(OrderedDict\); expected a gymnasium.Env"),
        ("math:pi", TypeError, r"env: got 'math:pi', which is 3.14.*; expected a class or a function"),
    ],
)
def test_environments_that_are_none(env, error, message):
    with pytest.raises(error, match=message):
        make(recipe(*given_environment(env)[:1]))


def test_a_vector_environment_and_one_that_cannot_be_copied_are_explained():
    with pytest.raises(TypeError, match=r"a vector environment; expected one environment.*and num_envs"):
        given_environment(gym.make_vec("CartPole-v1", 2))
    env = Corridor()
    env.connection = (letter for letter in "a generator")
    with pytest.raises(TypeError, match=r"cannot be copied \(TypeError: cannot pickle.*Give a class or a function"):
        given_environment(env)


def test_a_module_that_misses_a_package_is_told_from_one_that_is_missing(corridors, monkeypatch):
    monkeypatch.syspath_prepend(corridors)
    with pytest.raises(
        ValueError, match=r"needs the package 'a_package_that_is_missing'.*which broken imports"
    ) as told:
        recipe("broken:Mine-v0")
    assert "pip install" not in str(told.value)


def test_keyword_arguments_that_are_none(tmp_path):
    with pytest.raises(
        ValueError, match=r"env_kwargs: got '\[3\]'; expected a JSON object\. Example: '\{\"size\": 3\}'"
    ):
        polyak.train(env_kwargs="[3]")
    with pytest.raises(TypeError, match=r"env_kwargs: got .*, which config.json cannot hold .*Give env as a function"):
        polyak.train(env_kwargs={"size": Corridor})
    with pytest.raises(EnvironmentFailure, match=r"could not be made with {'length': 3}: TypeError: .*'length'"):
        make_one(recipe("<Corridor>", '{"length": 3}', given={"<Corridor>": Corridor}))
    with pytest.raises(TypeError, match=r"wrappers: got 'corridors:doubled'; expected strings"):
        polyak.train(wrappers="corridors:doubled")


def test_texts_of_objects():
    assert text_of(imported("gymnasium.envs.classic_control:CartPoleEnv", "env")) == (
        "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    )
    assert text_of(functools.partial(Corridor)) == "<partial>"
    assert resolve("<x>", {"<x>": 3}, "env") == 3
