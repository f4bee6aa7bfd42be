"""A run: a config, a folder and a loop that fills it; made, resumed and evaluated.

What stands in the folder: ``config.json`` (the config, resolved, with versions), ``metrics.jsonl`` (the records),
``checkpoints/`` (the carry), ``parameters.npz`` (what is evaluated), ``evaluation.json`` and ``learning_curve.png``.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from .. import __version__
from ..agents import Agent, dqn, evaluation_state
from ..networks import Lowering
from ..replay import host
from ..updates import TargetRule, is_none
from . import checkpoint
from .config import RunConfig, agent_name, from_json, to_json
from .environment import Environments, make
from .evaluation import LANES, evaluate, evaluation_seed
from .figures import learning_curve
from .host_loop import Carry, Record, host_loop, initial_carry, total_learner_steps
from .records import JsonlWriter, read_jsonl

Report = Callable[[str], None]
OnRecord = Callable[[Record], None]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a config builds: agent and environments, ready for the loop."""

    config: RunConfig
    agent: Agent
    environment: Environments


def build(config: RunConfig) -> Parts:
    """Makes the agent and the environments of a run.

    Raises:
        ValueError, TypeError: anything in the config that cannot be; no environment has been stepped.
    """
    environment = make(config.env, config.num_envs, config.seed)
    updates_in_all = total_learner_steps(config.agent, config.steps, config.num_envs)
    # Convolutions inside scan collapse on XLA's CPU backend; patches and a matrix product do not.
    scanned = max(config.num_envs // config.agent.train_every, 1) * config.agent.learner_steps > 1
    lowering: Lowering = "patches" if scanned and jax.default_backend() == "cpu" else "convolution"
    agent = dqn(config.agent, environment.spec, total_learner_steps=updates_in_all, lowering=lowering)
    return Parts(config, agent, environment)


def describe_targets(parts: Parts) -> dict[str, Any]:
    """Each target's rule as text, and its period in learner and in environment steps."""
    unit = parts.config.agent.environment_steps_per_learner_step
    described = {}
    for name, named in parts.agent.targets.items():
        rule = named.rule
        if not isinstance(rule, TargetRule):
            continue
        described[name] = {
            "rule": str(rule),
            "step_size": float(rule.step_size),
            "period_learner_steps": None if is_none(rule) else int(rule.period),
            "period_environment_steps": None if is_none(rule) else float(rule.period * unit),
        }
    return described


def resolved(parts: Parts) -> dict[str, Any]:
    """What ``config.json`` holds: the config, what follows from it, and the versions it ran on."""
    config, spec = parts.config, parts.environment.spec
    libraries = ("jax", "jaxlib", "dm-haiku", "optax", "rlax", "chex", "gymnasium", "numpy")
    capacity = config.agent.replay_capacity
    return {
        "config": to_json(config),
        "resolved": {
            "targets": describe_targets(parts),
            "learner_steps": total_learner_steps(config.agent, config.steps, config.num_envs),
            "observation": {"shape": list(spec.observation.shape), "dtype": str(spec.observation.dtype)},
            "num_actions": spec.num_actions,
            "replay_bytes": host.nbytes(spec.observation, num_envs=config.num_envs, capacity=capacity),
        },
        "versions": {
            "polyak": __version__,
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in libraries},
        },
    }


def prepare_folder(folder: pathlib.Path) -> None:
    """Makes the folder of a new run.

    Raises:
        ValueError: it holds a run, is a file, or cannot be written.
    """
    if folder.is_file():
        raise ValueError(f"out: {folder} is a file; expected a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()):
        what = "a run" if (folder / "config.json").exists() else "files"
        raise ValueError(f"out: {folder} holds {what}. Give another folder, or continue with: polyak resume {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"out: {folder} cannot be written ({error.strerror}). Give another folder.") from None


def default_folder(config: RunConfig) -> pathlib.Path:
    """``runs/dqn-CartPole-v1-seed0-DATE-TIME``; slashes in the environment's id become dashes."""
    environment = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in config.env)
    moment = time.strftime("%Y%m%d-%H%M%S")
    return pathlib.Path("runs") / f"{agent_name(config.agent)}-{environment}-seed{config.seed}-{moment}"


def train(config: RunConfig, folder: pathlib.Path, on_record: OnRecord, report: Report) -> dict[str, Any] | None:
    """Trains a new run in ``folder``; returns its evaluation, or None when it was interrupted."""
    parts = build(config)
    carry = initial_carry(parts.agent, parts.environment, config.agent, config.seed)
    prepare_folder(folder)
    write_json(folder / "config.json", resolved(parts))
    return _run(parts, carry, folder, 0, on_record, report)


def resume(folder: pathlib.Path, on_record: OnRecord, report: Report) -> dict[str, Any] | None:
    """Continues a run from its newest checkpoint, as if it had never stopped; returns what :func:`train` returns.

    Raises:
        ValueError: no run stands in ``folder``, or its checkpoint is of another run.
    """
    parts = build(read_config(folder))
    config = parts.config
    checkpoint.remove_unfinished(folder / "checkpoints")
    carry = initial_carry(parts.agent, parts.environment, config.agent, config.seed)
    try:
        carry, metrics_bytes = _restore(carry, parts.environment, folder)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    if carry.steps >= config.steps and (folder / "evaluation.json").exists():
        report(f"{folder} ended at step {carry.steps}; nothing is left to do.")
        evaluation: dict[str, Any] = read_json(folder / "evaluation.json")
        return evaluation
    report(f"resuming {folder} at step {carry.steps}")
    return _run(parts, carry, folder, metrics_bytes, on_record, report)


def evaluate_run(folder: pathlib.Path, episodes: int, seed: int | None, epsilon: float) -> dict[str, Any]:
    """Evaluates the parameters of a finished run.

    Raises:
        ValueError: no run with parameters stands in ``folder``, or they do not fit its network.
    """
    config = read_config(folder)
    parts = build(config)
    path = folder / "parameters.npz"
    if not path.is_file():
        raise ValueError(f"{path}: no parameters; the run has not ended. Continue it with: polyak resume {folder}")
    state = parts.agent.init(jax.random.key(config.seed))
    state = state._replace(params=load_params(path, state.params), targets={})
    return _evaluate(parts, state, episodes, evaluation_seed(config.seed) if seed is None else seed, epsilon)


def read_config(folder: pathlib.Path) -> RunConfig:
    """Reads the config of the run in ``folder``.

    Raises:
        ValueError: there is none, or it is not one that this version of polyak knows.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no run stands there (no config.json). Make one with: polyak train --out {folder}")
    return from_json(read_json(folder / "config.json")["config"])


def save_params(path: pathlib.Path, params: Any) -> None:
    """Writes parameters as arrays by path (``mlp/~/linear_0/w``), without pickle."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    named = {jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf) for keys, leaf in leaves}
    _replace_whole(path, lambda file: np.savez(file, allow_pickle=False, **named))


def load_params(path: pathlib.Path, template: Any) -> Any:
    """Reads parameters of the structure, shapes and dtypes of ``template``.

    Raises:
        ValueError: the file is no npz of plain arrays, or does not fit; the message names the parameter.
    """
    entries, structure = jax.tree_util.tree_flatten_with_path(template)
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    leaves = []
    for keys, leaf in entries:
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        array = found.get(name)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            got = "nothing" if array is None else f"{array.dtype}{array.shape}"
            raise ValueError(f"{path}: {name}: got {got}; the config's network has {leaf.dtype}{leaf.shape}.")
        leaves.append(jax.numpy.array(array))
    return jax.tree_util.tree_unflatten(structure, leaves)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    _replace_whole(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text())


def _replace_whole(path: pathlib.Path, write: Callable[[Any], Any]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _run(
    parts: Parts, carry: Carry, folder: pathlib.Path, metrics_bytes: int, on_record: OnRecord, report: Report
) -> dict[str, Any] | None:
    config, checkpoints = parts.config, folder / "checkpoints"
    saved = carry.steps if checkpoint.steps_saved(checkpoints) else -1
    with _interrupts() as interrupted, JsonlWriter(folder / "metrics.jsonl", at=metrics_bytes) as metrics:
        if saved < 0:
            _save(parts, carry, checkpoints, metrics)
        loop = host_loop(
            parts.agent,
            parts.environment,
            config.agent,
            carry,
            steps=config.steps,
            record_every=config.log_every,
            stop=interrupted.is_set,
        )
        for carry, record in loop:
            if record:
                metrics.write(record)
                on_record(record)
            due = carry.steps // config.checkpoint_every > max(saved, 0) // config.checkpoint_every
            if due or not record or carry.steps >= config.steps:
                _save(parts, carry, checkpoints, metrics)
                saved = carry.steps
        if interrupted.is_set() and carry.steps < config.steps:
            report(f"interrupted at step {carry.steps}, saved; continue with: polyak resume {folder}")
            return None
    return _finish(parts, carry, folder)


def _finish(parts: Parts, carry: Carry, folder: pathlib.Path) -> dict[str, Any]:
    parts.environment.close()
    save_params(folder / "parameters.npz", evaluation_state(carry.agent).params)
    seed = evaluation_seed(parts.config.seed)
    result = _evaluate(parts, carry.agent, parts.config.evaluation_episodes, seed, epsilon=0.0)
    write_json(folder / "evaluation.json", result)
    title = f"{agent_name(parts.config.agent)} on {parts.config.env}, target {describe_targets(parts)['q']['rule']}"
    learning_curve(list(read_jsonl(folder / "metrics.jsonl")), folder / "learning_curve.png", title)
    return result


def _evaluate(parts: Parts, state: Any, episodes: int, seed: int, epsilon: float) -> dict[str, Any]:
    if episodes < 1:
        raise ValueError(f"episodes: got {episodes}; expected an integer >= 1.")
    environment = make(parts.config.env, min(episodes, LANES), seed)
    returns = evaluate(parts.agent, state, environment, episodes=episodes, seed=seed, epsilon=epsilon)
    environment.close()
    error = float(np.std(returns, ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else None
    return {
        "mean": float(np.mean(returns)),
        "standard_error": error,
        "episodes": len(returns),
        "seed": seed,
        "epsilon": epsilon,
        "returns": returns.tolist(),
    }


def _arrays(carry: Carry) -> Any:
    """The part of a carry that keeps its shapes: what a checkpoint compares with its template."""
    statistics = carry.statistics
    running = (statistics.running_return, statistics.running_length)
    return (carry.key, carry.agent, carry.memory, carry.replay, carry.timestep, carry.totals, running)


def _save(parts: Parts, carry: Carry, folder: pathlib.Path, metrics: JsonlWriter) -> None:
    statistics = carry.statistics
    metadata = {
        "steps": carry.steps,
        "learner_steps": carry.learner_steps,
        "learner_steps_recorded": carry.learner_steps_recorded,
        "generator": carry.generator.bit_generator.state,
        "recent": statistics.recent,
        "finished": statistics.finished,
        "episodes": statistics.episodes,
        "metrics_bytes": metrics.position(),
    }
    checkpoint.save(folder, carry.steps, _arrays(carry), parts.environment.snapshot(), metadata)


def _restore(carry: Carry, environment: Environments, folder: pathlib.Path) -> tuple[Carry, int]:
    tree, snapshot, metadata = checkpoint.restore_latest(folder / "checkpoints", _arrays(carry))
    key, agent, memory, replay, timestep, totals, (running_return, running_length) = tree
    generator, statistics = carry.generator, carry.statistics
    generator.bit_generator.state = metadata["generator"]
    statistics.running_return, statistics.running_length = running_return, running_length
    statistics.recent, statistics.episodes = metadata["recent"], metadata["episodes"]
    statistics.finished = [tuple(episode) for episode in metadata["finished"]]
    resumed, restarted = environment.restore(snapshot)
    if restarted.any():
        # Those environments cannot be led back to where they stood: their episodes end here, as truncated.
        timestep, replay = resumed, host.end_episode(replay, restarted)
        statistics.restart(restarted)
    counters = (metadata["steps"], metadata["learner_steps"], metadata["learner_steps_recorded"])
    restored = Carry(key, agent, memory, replay, generator, timestep, totals, statistics, *counters)
    return restored, metadata["metrics_bytes"]


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; a second one ends the process as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(number: int, frame: Any) -> None:
        del frame
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
