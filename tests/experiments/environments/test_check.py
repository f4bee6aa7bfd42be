"""polyak check: for each check an environment that breaks it and nothing else, and environments that pass."""

import itertools
import re
import sys
import types
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak import experiments
from polyak.experiments import cli
from polyak.experiments.environments import check_runs, check_traces
from polyak.experiments.environments.check import check
from polyak.experiments.environments.functional.types import FunctionalEnvironment, FunctionalStep
from polyak.experiments.environments.types import EnvironmentFailure
from polyak.replay.types import EnvironmentSpec

FLOATS = jax.ShapeDtypeStruct((2,), jnp.float32)


class State(NamedTuple):
    place: jax.Array
    steps: jax.Array


class Other(NamedTuple):
    place: jax.Array
    steps: jax.Array


def walk(limit=12):
    """A random walk that terminates at a distance of 2, and is truncated after ``limit`` steps."""

    def init(key):
        place = jax.random.uniform(key, (2,), jnp.float32, -0.1, 0.1)
        return State(place, jnp.int32(0)), place

    def step(key, state, action):
        noise = jax.random.uniform(key, (2,), jnp.float32)
        place, steps = state.place + (action - 0.5) * noise, state.steps + 1
        return State(place, steps), FunctionalStep(
            place, jnp.float32(1), jnp.abs(place[0]) + jnp.abs(place[1]) > 2, steps >= limit
        )

    return FunctionalEnvironment(EnvironmentSpec(FLOATS, 2), init, step, name="walk")


def stepping(change):
    """The walk with another result of each step: ``change(key, action, state, outcome)``."""
    good = walk()

    def step(key, state, action):
        return change(key, action, *good.step(key, state, action))

    return good._replace(step=step)


def outcomes(**fields):
    """The walk with other fields of the outcome, functions of the state and of the outcome."""
    return stepping(
        lambda key, action, state, outcome: (
            state,
            outcome._replace(**{name: make(state, outcome) for name, make in fields.items()}),
        )
    )


def starting(change):
    """The walk with another result of ``init``."""
    good = walk()
    return good._replace(init=lambda key: change(*good.init(key)))


def masked(mask, declared=True):
    return walk()._replace(spec=EnvironmentSpec(FLOATS, 2, declared), action_mask=mask)


def branching():
    return outcomes(r_t=lambda state, outcome: jnp.float32(0) if outcome.terminated else jnp.float32(1))


def counting():
    """Rewards count the traces: Python state, which a compiled program reads once."""
    traces = []

    def count(state, outcome):
        traces.append(1)
        return jnp.float32(len(traces))

    return outcomes(r_t=count)


def counted_starts(count):
    return starting(lambda state, observation: (state, observation + next(count)))


def of_the_batch():
    """The reward of a batch is not that of single calls."""
    same = jax.custom_batching.custom_vmap(lambda reward: reward)
    same.def_vmap(lambda size, batched, reward: (reward + 1, True))
    return outcomes(r_t=lambda state, outcome: same(outcome.obs_t[0]))


def resetting():
    """The step resets the walk by itself, as environments of other packages do."""
    good = walk()

    def step(key, state, action):
        after, outcome = good.step(key, state, action)
        last = outcome.terminated | outcome.truncated
        fresh, first = good.init(key)
        return jax.tree.map(lambda new, old: jnp.where(last, new, old), fresh, after), outcome._replace(
            obs_t=jnp.where(last, first, outcome.obs_t)
        )

    return good._replace(step=step)


def unprinted(state, outcome):
    return state, outcome


def printed(state, outcome):
    jax.debug.print("late")
    return state, outcome


def called_back(**options):
    def count(state, outcome):
        return jax.pure_callback(
            lambda reward: reward, jax.ShapeDtypeStruct((), jnp.float32), outcome.obs_t[0], **options
        )

    return outcomes(r_t=count)


BROKEN = {
    "a branch in Python": (branching, {"traceable"}, r"^test_check.py:\d+: Tracer\w+: .* Write branches"),
    "no pair": (
        lambda: walk()._replace(init=lambda key: jnp.zeros(2)),
        {"traceable"},
        "init returned .*expected a pair",
    ),
    "no FunctionalStep": (
        lambda: stepping(lambda key, action, state, outcome: (state, tuple(outcome))),
        {"traceable"},
        "step returned tuple beside the state; expected FunctionalStep",
    ),
    "a space": (
        lambda: walk()._replace(spec=EnvironmentSpec(gym.spaces.Box(-1, 1, (2,), np.float64), 2)),
        {"spec", "observations"},
        "expected a jax.ShapeDtypeStruct of float32 or uint8",
    ),
    "an array of actions": (
        lambda: walk()._replace(spec=EnvironmentSpec(FLOATS, jnp.int32(2))),
        {"spec"},
        "spec.num_actions: got .*; expected a Python int >= 1",
    ),
    "no mask": (lambda: masked(None), {"spec"}, "action_mask is None. Give action_mask=True"),
    "an undeclared mask": (
        lambda: masked(lambda state: jnp.ones(2, bool), False),
        {"spec"},
        "spec.action_mask is False",
    ),
    "a mask of another shape": (
        lambda: masked(lambda state: jnp.ones(3, bool)),
        {"spec"},
        r"action_mask returned bool\[3\]; expected bool\[2\]",
    ),
    "a first observation of another shape": (
        lambda: starting(lambda state, observation: (state, observation[:1])),
        {"observations"},
        r"init returned an observation float32\[1\]; expected float32\[2\].* in init",
    ),
    "an observation of another dtype": (
        lambda: outcomes(obs_t=lambda state, outcome: outcome.obs_t.astype(jnp.float16)),
        {"observations"},
        r"step returned an observation float16\[2\]; expected float32\[2\].* in step",
    ),
    "an integer as reward": (
        lambda: outcomes(r_t=lambda state, outcome: jnp.int32(1)),
        {"reward and flags"},
        r"r_t: step returned int32\[\]; expected float32\[\]. Return a scalar of jnp.float32",
    ),
    "an array as flag": (
        lambda: outcomes(terminated=lambda state, outcome: outcome.terminated[None]),
        {"reward and flags"},
        r"terminated: step returned bool\[1\]; expected bool\[\]",
    ),
    "a state of changing dtype": (
        lambda: stepping(lambda key, action, state, outcome: (state._replace(steps=jnp.float32(1)), outcome)),
        {"state"},
        r"state.steps is int32\[\] after init and float32\[\] after the first step. .* convert with astype",
    ),
    "a state of another tree": (
        lambda: stepping(lambda key, action, state, outcome: (State([state.place], state.steps), outcome)),
        {"state"},
        r"state.place is float32\[2\] after init and absent after the first step",
    ),
    "a state of another type": (
        lambda: stepping(lambda key, action, state, outcome: (Other(*state), outcome)),
        {"state"},
        "trees of different types. Return the same containers",
    ),
    "a 64-bit number": (
        lambda: starting(lambda state, observation: (State(np.zeros(2), state.steps), observation)),
        {"64-bit numbers"},
        r"state.place of init is float64. Use 32-bit numbers",
    ),
    "a callback": (
        lambda: called_back(vmap_method="sequential"),
        {"host callbacks"},
        "the program has pure_callback, which calls the host",
    ),
    "a print within a branch": (
        lambda: stepping(
            lambda key, action, state, outcome: jax.lax.cond(state.steps > 99, printed, unprinted, state, outcome)
        ),
        {"host callbacks"},
        "remove jax.debug.print",
    ),
    "a callback without vmap": (
        called_back,
        {"host callbacks", "scan"},
        "must work in jax.lax.scan and under jax.vmap",
    ),
    "Python state": (
        counting,
        {"determinism", "scan", "vmap"},
        "step returned another result for equal arguments after it was traced again, at r_t. Use the key",
    ),
    "Python state in init": (
        lambda: counted_starts(itertools.count()),
        {"determinism", "vmap"},
        "init returned another result for equal arguments after it was traced again, at observation",
    ),
    "a reward of the batch": (of_the_batch, {"vmap"}, "step under jax.vmap differs from a single call, at r_t"),
    "an action too few": (
        lambda: stepping(
            lambda key, action, state, outcome: (state, outcome._replace(r_t=jnp.array([1.0, jnp.nan])[action]))
        ),
        {"actions", "finite values"},
        "the legal action 1 gave .* not finite. Actions are counted from 0 to spec.num_actions - 1 = 1",
    ),
    "no legal action": (
        lambda: masked(lambda state: jnp.full(2, state.steps != 3)),
        {"action masks"},
        r"no action is legal in \d+ of \d+ states before a step. Terminate the episode there",
    ),
    "an infinite observation": (
        lambda: outcomes(obs_t=lambda state, outcome: jnp.where(state.steps == 6, jnp.inf, outcome.obs_t)),
        {"finite values"},
        r"not finite at step \d+ of environment \d+. Bound the state",
    ),
    "one flag for both": (
        lambda: outcomes(truncated=lambda state, outcome: outcome.terminated),
        {"termination"},
        r"all \d+ episodes ended terminated and truncated at once. Return terminated for the end of the task",
    ),
    "a reset in step": (resetting, {"last observation"}, "which indicates a reset inside step. Return the state and"),
}


def failures(findings):
    return {finding.check: finding.detail for finding in findings if finding.status == "failed"}


def details(findings):
    return {finding.check: finding.detail for finding in findings}


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.slow if number % 2 else ()) for number, fault in enumerate(BROKEN)]
)
def test_each_fault_of_a_functional_environment_fails_its_check(fault):
    make, wanted, text = BROKEN[fault]
    findings = check(make(), steps=40, num_envs=4)
    found = failures(findings)
    assert found.keys() == wanted
    assert any(re.search(text, detail) for detail in found.values()), found
    checks = [finding.check for finding in findings]
    assert checks == ["traceable", *check_traces.NAMES, *checks[7:]]
    assert sorted(checks[7:]) == sorted(check_runs.NAMES)  # every check is in the list, also one that was not run
    assert findings[-1].status == "not applicable"  # the speed of a wrong environment


def test_a_good_environment_passes():
    findings = check(masked(lambda state: jnp.array([True, True]) & (state.steps < 99)), steps=60, num_envs=4)
    assert {finding.status for finding in findings} == {"passed"}
    found = details(findings)
    assert re.fullmatch(r"\d+ episodes terminated, \d+ were truncated.*", found["termination"])
    assert re.fullmatch(r"\d+ episodes ended, after \d+ to 12 steps", found["episodes"])
    assert found["starts"] == "different keys give different first observations"
    assert re.fullmatch(
        r"[\d,]+ environment steps per second with 4 environments on \w+, compiled in [\d.]+ s", found["speed"]
    )


@pytest.mark.slow
def test_images_masks_and_keys_in_the_state_pass():
    """A ball falls in a column; its key is in the state, and the paddle may not leave the image."""

    def image(state):
        ball = jnp.zeros((3, 3, 1), jnp.uint8).at[state["row"], state["column"], 0].set(255)
        return ball.at[2, state["paddle"], 0].set(255)

    def init(key):
        column = jax.random.randint(key, (), 0, 3)
        state = {"row": jnp.int32(0), "column": column, "paddle": jnp.int32(1), "key": key}
        return state, image(state)

    def step(key, state, action):
        state = {**state, "row": state["row"] + 1, "paddle": state["paddle"] + action - 1}
        end, caught = state["row"] == 2, state["paddle"] == state["column"]
        return state, FunctionalStep(image(state), jnp.float32(end & caught), end, jnp.bool_(False))

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((3, 3, 1), jnp.uint8), 3, True)
    findings = check(
        FunctionalEnvironment(spec, init, step, lambda state: (jnp.arange(3) + state["paddle"] - 1) % 4 != 3),
        steps=12,
        num_envs=4,
    )
    assert {finding.status for finding in findings} == {"passed"}
    found = details(findings)
    assert found["spec"] == "observation uint8[3,3,1], 3 actions, action masks"
    assert found["action masks"] == "every one of 48 states has a legal action"
    assert found["episodes"] == "24 episodes ended, after 2 to 2 steps"


def test_readings_that_are_no_failures():
    """A deterministic start, actions without an effect, episodes without an end."""
    endless = outcomes(
        terminated=lambda state, outcome: jnp.bool_(False),
        truncated=lambda state, outcome: jnp.bool_(False),
    )
    step = endless.step
    endless = endless._replace(
        spec=EnvironmentSpec(FLOATS, 4),
        init=lambda key: (State(jnp.zeros(2), jnp.int32(0)), jnp.zeros(2)),
        step=lambda key, state, action: step(key, state, action % 2),
    )
    findings = check(endless, steps=20, num_envs=2)
    assert failures(findings) == {}
    found = details(findings)
    assert found["starts"] == "the start is deterministic: 64 keys gave one state"
    assert found["actions"].endswith("; actions with equal results in 2 states: 0, 2 and 1, 3")
    assert found["episodes"].startswith("no episode ended within 20 steps of 2 environments")
    statuses = {finding.check: finding.status for finding in findings}
    assert (statuses["episodes"], statuses["termination"], statuses["last observation"]) == (
        "warning",
        *["not applicable"] * 2,
    )


class Gym(gym.Env):
    """A random walk of one number, with faults by name."""

    def __init__(self, fault=""):
        self.observation_space = gym.spaces.Box(-100, 100, (1,), np.float32)
        self.action_space = gym.spaces.MultiDiscrete([2, 2]) if fault == "spaces" else gym.spaces.Discrete(2)
        self.fault, self.resets, self.buffer = fault, 0, np.zeros(1, np.float32)

    def observe(self):
        if self.fault == "buffers":
            self.buffer[:] = self.place
            return self.buffer
        return np.array([self.place], np.float32)

    def info(self):
        none = self.fault == "action masks" and self.steps == 3
        return {"action_mask": np.zeros(2) if none else np.ones(2)} if "mask" in self.fault else {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=None if self.fault == "seeds" else seed)
        self.resets, self.steps = self.resets + 1, 0
        self.place = float(self.np_random.uniform(0, 9))
        return self.observe(), self.info()

    def step(self, action):
        self.steps += 1
        self.place += {"resume": self.resets, "observations": 20}.get(self.fault, self.np_random.normal())
        if self.fault == "inf" and self.steps == 5:
            self.place = np.nan
        if self.fault == "raises":
            self.place /= 0
        reward = "1" if self.fault == "rewards and flags" else 1.0
        result = self.observe(), reward, False, self.fault != "episodes" and self.steps >= 9, self.info()
        return result[:4] if self.fault == "old" else result


class Levels(Gym):
    """Keeps its number of resets, and returns it with ``get_state``."""

    def get_state(self):
        return self.resets

    def set_state(self, state):
        self.resets = state


@pytest.mark.parametrize(
    ("fault", "check_name", "text"),
    [
        ("spaces", "spaces", "expected Discrete"),
        ("seeds", "seeds", r"two resets with seed 0 .* Call super\(\).reset\(seed=seed\)"),
        ("observations", "observations", r"of step \d+ is not in Box.*Correct the bounds"),
        ("inf", "observations", r"of step 4 is not"),
        ("rewards and flags", "rewards and flags", "the reward of step 0 is '1'; expected one finite number"),
        ("action masks", "action masks", r"expected 2 values, one for each action, of which one is not 0"),
        ("resume", "resume", "differs at step 0, as a resumed run would. .* get_state and set_state"),
        ("old", "observations", "^OldApiError: step did not return 5 values. This is the old Gym API"),
        (
            "raises",
            "observations",
            r"^test_check.py:\d+: ZeroDivisionError: float division by zero\. The environment must step",
        ),
        ("seeds", "gymnasium", "seed"),  # Gymnasium's own checker
    ],
)
def test_each_fault_of_a_gymnasium_environment_fails_its_check(fault, check_name, text):
    found = failures(check(Gym, env_kwargs={"fault": fault}, steps=60))
    assert re.search(text, found[check_name])
    assert "\x1b" not in found[check_name]


def test_good_gymnasium_environments_pass():
    for env in (Gym, Gym(), "FrozenLake-v1"):
        findings = check(env, steps=60)
        assert failures(findings) == {}
    found = details(check(Gym, env_kwargs='{"fault": "mask"}', steps=60))
    assert found["action masks"] == "54 masks have a legal action; use them with --action-mask"
    assert found["episodes"] == "6 episodes ended, after 9 to 9 steps, with returns from 9 to 9"
    assert re.fullmatch(r"[\d,]+ environment steps per second with one environment, resets included", found["speed"])
    assert found["buffers"] == "every step returns a new observation"
    assert found["resume"] == "a replay of 50 actions gave equal results in a new environment"


def test_gymnasium_readings_that_are_no_failures():
    findings = check(Gym, env_kwargs={"fault": "buffers"}, steps=60)
    assert failures(findings) == {}
    assert "which is allowed" in details(findings)["buffers"]
    findings = check(Gym, env_kwargs={"fault": "episodes"}, steps=60)
    assert [finding.check for finding in findings if finding.status == "warning"] == ["episodes"]
    assert details(check(Levels, env_kwargs={"fault": "resume"}, steps=60))["resume"].startswith("get_state, set_state")
    cart = "gymnasium.envs.classic_control:CartPoleEnv"
    findings = check(cart, wrappers=["gymnasium.wrappers:OrderEnforcing"], steps=9)
    warned = [finding.detail for finding in findings if finding.status == "warning"]
    assert any("minimum value is -infinity" in text for text in warned)
    assert not any("unwrapped" in text or "\x1b" in text or "WARN" in text for text in warned)


def test_wrappers_change_either_kind():
    found = failures(
        check(walk(), wrappers=[lambda environment: environment._replace(spec=EnvironmentSpec(FLOATS, 0))])
    )
    assert found["spec"] == "spec.num_actions: got 0; expected a Python int >= 1."
    limited = check(Gym, wrappers=[lambda env: gym.wrappers.TimeLimit(env, 4)], steps=60)
    assert "after 4 to 4 steps" in details(limited)["episodes"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of environments that a text names; nothing may be traced."""
    lines = ["from test_check_walks import walk, Gym", "walked, number = walk(), 3"]
    lines += ["def fails(): raise ValueError('no track')"]
    (tmp_path / "walks.py").write_text("\n".join(lines))
    shared = types.ModuleType("test_check_walks")
    shared.walk, shared.Gym = walk, Gym
    monkeypatch.setitem(sys.modules, "test_check_walks", shared)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("walks", None)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("nowhere:make",), ValueError, "there is no module 'nowhere'"),
        (("walks:wolk",), ValueError, "walks has no 'wolk'.*walk"),
        (("walks:number",), TypeError, "which is 3; expected a.* gymnasium.Env"),
        (("builtins:dict",), TypeError, r"made \{\} \(dict\); expected a.* gymnasium.Env"),
        (("walks:fails",), EnvironmentFailure, "could not be made: ValueError: no track"),
        (("Cartpole-v1",), ValueError, "CartPole-v1"),
        (("walks:walked", {"env_kwargs": {"limit": 3}}), ValueError, "env_kwargs: got .* is an environment"),
        (("walks:walk", {"env_kwargs": "[3]"}), ValueError, "expected a JSON object"),
        (("walks:walk", {"wrappers": ["walks:number"]}), TypeError, "wrappers: got 'walks:number', which is 3"),
        (("walks:walk", {"wrappers": [lambda env: 3]}), TypeError, "wrappers: got int from the last one"),
        (("walks:walk", {"steps": 0}), ValueError, "steps: got 0; expected an integer >= 1"),
        (("walks:walk", {"num_envs": True}), ValueError, "num_envs: got True"),
        ((3,), TypeError, "env: got 3"),
        ((walk(), {"env_kwargs": {"limit": 3}}), ValueError, "env_kwargs: got .* but <walk> is an environment"),
    ],
)
def test_bad_input_is_an_error_before_anything_is_traced(arguments, error, text, module, monkeypatch):
    monkeypatch.setattr(check_traces, "check_traces", lambda environment: pytest.fail("traced"))
    env, options = (*arguments, {})[:2]
    with pytest.raises(error, match=text):
        check(env, **options)


def test_the_command_prints_a_line_for_each_check(module, capsys):
    assert cli.run(["check", "walks:walk", "--steps", "60", "--num-envs", "4"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines[0] == "passed          traceable           jit traces init, step and the action mask"
    assert len(lines) == 7 + len(check_runs.NAMES)
    assert last == "no check failed"
    arguments = [
        "--env-kwargs",
        '{"fault": "seeds"}',
        "--wrapper",
        "gymnasium.wrappers:OrderEnforcing",
        "--steps",
        "20",
    ]
    assert cli.run(["check", "walks:Gym", *arguments]) == 1
    captured = capsys.readouterr()
    assert re.search(r"^failed          seeds               two resets", captured.out, re.MULTILINE)
    assert re.search(r"\n\d of 1\d checks failed\n$", captured.out)
    assert captured.err == ""
    assert cli.run(["check", "walks:number"]) == 2
    assert capsys.readouterr().err.startswith("polyak: env: got 'walks:number'")


def test_the_suite_is_public():
    assert experiments.check is check
    assert str(experiments.Finding("a", "failed", "b")).split() == ["failed", "a", "b"]
