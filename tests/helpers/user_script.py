"""A program as a user writes it: type checkers find nothing wrong in it (CONTRIBUTING.md has the commands)."""

import pathlib
from typing import Any

import gymnasium
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

import polyak
from polyak import networks, updates
from polyak.agents import TermOutput, make_agent
from polyak.agents.config import Categorical
from polyak.experiments.api import Pretrained, Run


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """An episode of so many steps, each worth 1."""

    def __init__(self, size: int = 5) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 99, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.size, self.time = size, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return np.full(1, self.time, np.float32), 1.0, self.time >= self.size, False, {}


def limited(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    return gymnasium.wrappers.TimeLimit(env, 30)


def small(spec: Any) -> networks.Network:
    def encode(observation: jax.Array, is_training: bool) -> jax.Array:
        return jax.nn.relu(hk.Linear(32)(observation))

    def value(hidden: jax.Array, observation: jax.Array, is_training: bool) -> networks.ValueOutput:
        return networks.ValueOutput(q_values=hk.Linear(spec.num_actions)(hidden))

    return networks.compose(encode, value, draws=False)


def calm(key: jax.Array, views: Any) -> TermOutput:
    size = jnp.mean(views.online.tm1.q_values**2, axis=(1, 2))
    return TermOutput(size, metrics={"value_size": jnp.mean(size)})


def stop_early(carry: Any, record: dict[str, Any]) -> bool:
    return bool(record["step"] >= 400)


def runs(folder: pathlib.Path) -> Run:
    first = polyak.train(
        "dqn", steps=600, learning_starts=100, hidden_sizes=(8,), target="periodic:50", out=folder / "a"
    )
    polyak.train(
        "dqn",
        env=Corridor,
        env_kwargs={"size": 9},
        wrappers=[limited],
        network=small,
        terms={"calm": (0.001, calm)},
        learning_rate="linear(0.001,0,100%)",
        epsilon=0.1,
        steps=600,
        learning_starts=100,
        callbacks=[stop_early],
        out=folder / "b",
    )
    polyak.train(env=Corridor(), head=Categorical(v_min=0.0, v_max=9.0), core=None, initial=None, steps=1200, out=False)
    again = polyak.load(folder / "a")
    action = again.act(np.zeros(4, np.float32))
    values: np.ndarray = again.q_values(np.zeros((2, 4), np.float32))
    mean: float = polyak.evaluate(again, episodes=2)["mean"]
    print(first, action, values.shape, mean, again.metrics["loss"].shape, again.evaluation["mean"])
    again.plot().savefig(folder / "curve.pdf")
    print(polyak.compare(folder / "a", folder / "b", window=10))
    print(polyak.load_exported(polyak.export(first, format="npz")).arrays.keys())
    more = polyak.resume(folder / "a", steps=1200)
    assert isinstance(more, Run)
    return more


def pretraining(folder: pathlib.Path) -> Pretrained:
    run = polyak.pretrain("byol", data=folder / "images.npz", steps=2, batch_size=4, optimizer="lars", predictor=None)
    print(run.encode(np.zeros((1, 8, 8, 1), np.uint8)).shape, run.plot())
    return run


def targets() -> Any:
    online, slow = {"w": jnp.ones(3)}, {"w": jnp.zeros(3)}
    slow = updates.incremental_update(online, slow, step_size=0.005)
    rule = updates.parse("periodic:500")
    state = updates.target.init(rule, online)
    state = updates.target.update(rule, online, state)
    print(str(rule), make_agent)
    return slow["w"]
