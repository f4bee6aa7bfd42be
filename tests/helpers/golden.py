"""The golden record: 50 learner steps of every agent of 0.1.0 on fixed batches, kept as test data.

``tests/golden/batches.npz`` holds ten batches of transitions, of images and of sequences;
``tests/golden/configurations.json`` the configurations, as flat fields of 0.1.0; and ``tests/golden/NAME.npz`` the
losses, final parameters, targets and actions of one of them. Version 0.1.0 wrote them with JAX 0.12.0.1 on an Intel
Xeon, XLA on a single thread.
"""

import json
import os
import pathlib
import re
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from polyak.agents.types import StepExtras
from polyak.replay import EnvironmentSpec, Sample, Sequence, TimeStep, Transition

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "golden"
STEPS, BATCHES, BATCH, ACTIONS = 50, 10, 16, 3
VECTOR, IMAGE = (4,), (10, 10, 2)


def spec(configuration: dict[str, Any]) -> EnvironmentSpec:
    """The environment of a configuration: vectors, or images in bytes; with action masks where it says so."""
    shape, dtype = (IMAGE, jnp.uint8) if configuration["images"] else (VECTOR, jnp.float32)
    return EnvironmentSpec(jax.ShapeDtypeStruct(shape, dtype), ACTIONS, configuration["action_mask"])


def samples(configuration: dict[str, Any], lstm_size: int = 8) -> list[Sample]:
    """Its ten batches."""
    with np.load(FOLDER / "batches.npz") as stored:
        data = dict(stored)
    name = "image" if configuration["images"] else "vector"
    steps = configuration["fields"].get("burn_in", 0) + configuration["fields"].get("sequence_length", 0)
    if steps:
        return [_sequence(data, i, steps, lstm_size, configuration) for i in range(BATCHES)]
    return [_transition(data, i, name, configuration) for i in range(BATCHES)]


def _transition(data: dict[str, np.ndarray], i: int, name: str, configuration: dict[str, Any]) -> Sample:
    masks = (data["mask_tm1"][i], data["mask_t"][i]) if configuration["action_mask"] else ((), ())
    is_ensemble = configuration["fields"]["head"] == "ensemble"
    extras = StepExtras(member_mask=data["ensemble_mask"][i]) if is_ensemble else ()
    obs_tm1, obs_t = data[f"{name}_tm1"][i], data[f"{name}_t"][i]
    drawn = Transition(obs_tm1, data["a_tm1"][i], data["r_t"][i], data["discount_t"][i], obs_t, extras, *masks)
    return Sample(drawn, data["weights"][i], np.arange(BATCH))


def _sequence(data: dict[str, np.ndarray], i: int, steps: int, lstm_size: int, configuration: dict[str, Any]) -> Sample:
    number = np.arange(steps)
    valid = number < data["sequence_lengths"][i][:, None]
    a_tm1, r_t, discount_t = (data[f"sequence_{field}"][i][:, :steps] for field in ("a_tm1", "r_t", "discount_t"))
    state = data["lstm"][i][..., :lstm_size]
    drawn = Sequence(
        obs=data["sequence_obs"][i][:, : steps + 1],
        a_tm1=np.where(valid, a_tm1, 0),
        r_t=np.where(valid, r_t, 0).astype(np.float32),
        discount_t=np.where(valid, discount_t, 0).astype(np.float32),
        valid=valid,
        first=data["first"][i],
        complete=data["complete"][i],
        extras=StepExtras(hk.LSTMState(state[0], state[1]), data["a_tm1"][i], data["r_t"][i]),
        n_steps=np.full(BATCH, configuration["fields"]["n_steps"], np.int32),
    )
    return Sample(drawn, data["weights"][i], np.arange(BATCH))


def play(agent: Any, configuration: dict[str, Any]) -> dict[str, np.ndarray]:
    """Fifty learner steps and one call of ``act`` on each side of them: losses, metrics, parameters, actions."""
    drawn, key = samples(configuration), jax.random.key(7)
    state, learn = agent.init(jax.random.key(3)), jax.jit(agent.learn)
    found: dict[str, list[np.ndarray]] = {}
    acted = [_act(agent, state, drawn[0], configuration)]
    for step in range(STEPS):
        state, output = learn(jax.random.fold_in(key, step), state, drawn[step % BATCHES])
        for name, value in output.metrics.items():
            found.setdefault(f"metrics/{name}", []).append(np.asarray(value))
        found.setdefault("priorities", []).append(np.asarray(output.priorities))
    acted.append(_act(agent, state, drawn[0], configuration))
    record = {name: np.stack(values) for name, values in found.items()} | {"actions": np.stack(acted)}
    trees = {"params": state.params, **{f"target/{name}": target.params for name, target in state.targets.items()}}
    for tree, params in trees.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
            record[f"{tree}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = np.asarray(leaf)
    return record


def _act(agent: Any, state: Any, sample: Sample, configuration: dict[str, Any]) -> np.ndarray:
    drawn = sample.transition
    is_sequence = isinstance(drawn, Sequence)
    observation = drawn.obs[:, 0] if is_sequence else drawn.obs_tm1
    mask = drawn.action_mask_tm1 if configuration["action_mask"] else ()
    a_tm1 = drawn.a_tm1[:, 0] if is_sequence else ()
    timestep = TimeStep(observation, np.ones(BATCH, np.float32), np.arange(BATCH) % 3 == 0, mask, a_tm1)
    recurrent_state = agent.initial_recurrent_state(jax.random.key(5), BATCH)
    return np.asarray(jax.jit(agent.act)(jax.random.key(6), state, recurrent_state, timestep).action)


def configurations() -> dict[str, dict[str, Any]]:
    """Name to ``agent``, ``fields`` (flat, of 0.1.0), and whether it sees ``images`` and an ``action_mask``."""
    return json.loads((FOLDER / "configurations.json").read_text())


def recorded(name: str) -> dict[str, np.ndarray]:
    """The record of 0.1.0."""
    with np.load(FOLDER / f"{name}.npz") as stored:
        return dict(stored)


# The torso's noise had the first key of the sequence that the head's noise went on with; now each has a key of its own.
OTHER_NOISE = ("noisy_dqn", "qr_dqn_noisy_adamw")
# Rewards and discounts of a window were multiplied into the value from its end backwards; now they are summed first,
# as the replay sums transitions, so that every head can learn from sequences.
OTHER_SUMS = ("r2d2", "r2d2_without_burn_in")


def assert_equal(name: str, found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compares to the bit where compiler, processor and threads are those of the record, else within rounding.

    Metrics are means over the batch whose order of summation the compiler chooses by what it fuses them with, so they
    are compared within rounding everywhere. ``priority`` and ``importance_weight`` are the loop's metrics now.
    """
    names = set(expected) - {"metrics/priority", "metrics/importance_weight"}
    assert names <= set(found)
    for leaf in names:
        if name in OTHER_NOISE:
            assert found[leaf].shape == expected[leaf].shape, leaf
            assert np.isfinite(found[leaf]).all(), leaf
        elif not _is_where_it_was_written():  # fifty steps carry on how another compiler rounds
            np.testing.assert_allclose(found[leaf], expected[leaf], rtol=2e-3, atol=2e-4, err_msg=leaf)
        elif leaf.startswith("metrics/") or name in OTHER_SUMS:
            np.testing.assert_allclose(found[leaf], expected[leaf], rtol=1e-5, atol=1e-6, err_msg=leaf)
        else:
            np.testing.assert_array_equal(found[leaf], expected[leaf], err_msg=leaf)


def _is_where_it_was_written() -> bool:
    cpu = pathlib.Path("/proc/cpuinfo")
    same_cpu = cpu.is_file() and re.search(r"model\s*: 85\n", cpu.read_text()) is not None
    return jax.__version__ == "0.12.0.1" and same_cpu and "multi_thread_eigen=false" in os.environ.get("XLA_FLAGS", "")
