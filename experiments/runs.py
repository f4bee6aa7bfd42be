"""A run: a config, a folder and a loop that fills it; made, resumed and evaluated.

What stands in the folder: ``config.json`` (the config, resolved, with versions), ``metrics.jsonl`` (the records),
``checkpoints/`` (the carry), ``parameters.npz`` (what is evaluated), ``evaluation.json`` and ``learning_curve.png``.
"""

import dataclasses
import importlib.metadata
import pathlib
import platform
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .. import __version__
from ..agents import Agent, dqn, evaluation_state
from ..networks import Lowering
from ..replay import host
from ..updates import TargetRule, init_targets
from . import checkpoint
from .carries import restore_carry, save_carry
from .config import RunConfig, agent_name, from_json, to_json
from .environment import Environments, make
from .evaluation import LANES, evaluate, evaluation_seed
from .export import load_initial
from .figures import learning_curve
from .files import load_variables, locked, read_json, save_variables, write_json
from .host_loop import Carry, Record, batches_per_dispatch, host_loop, initial_carry, total_learner_steps
from .interrupts import interrupts, undisturbed
from .records import JsonlWriter, read_jsonl

Report = Callable[[str], None]
OnRecord = Callable[[Record], None]
SAVES_THAT_MAY_FAIL = 3  # one after the other, before the run stops


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
    if updates_in_all < 1:
        raise ValueError(
            f"train_every: got {config.agent.train_every}, and no multiple of it lies between learning_starts "
            f"{config.agent.learning_starts} and steps {config.steps}, so nothing would be learnt. Lower either."
        )
    # Convolutions inside scan collapse on XLA's CPU backend; patches and a matrix product do not.
    scanned = batches_per_dispatch(config.agent, config.num_envs) > 1
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
        moves = rule.period > 0 and rule.step_size > 0
        described[name] = {
            "rule": str(rule),
            "step_size": float(rule.step_size),
            "period_learner_steps": int(rule.period) if moves else None,
            "period_environment_steps": float(rule.period * unit) if moves else None,
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
        if (folder / "config.json").exists():
            raise ValueError(f"out: {folder} holds a run. Give another folder, or continue it: polyak resume {folder}")
        raise ValueError(f"out: {folder} holds files. Give another folder, new or empty.")
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
    """Trains a new run in ``folder``; returns its evaluation, or None when it was interrupted.

    Raises:
        ValueError: ``folder`` cannot be made, or what ``initial`` names cannot be read or does not fit the network.
    """
    parts = build(config)
    carry = _first_carry(parts)
    prepare_folder(folder)
    with locked(folder):
        write_json(folder / "config.json", resolved(parts))
        return _run(parts, carry, folder, 0, on_record, report)


def resume(folder: pathlib.Path, on_record: OnRecord, report: Report) -> dict[str, Any] | None:
    """Continues a run from its newest checkpoint, as if it had never stopped; returns what :func:`train` returns.

    Raises:
        ValueError: no run stands in ``folder``, or its checkpoint is of another run.
    """
    config = read_config(folder)
    with locked(folder):
        return _resume(build(config), folder, on_record, report)


def evaluate_run(folder: pathlib.Path, episodes: int, seed: int | None, epsilon: float) -> dict[str, Any]:
    """Evaluates the parameters of a finished run.

    Raises:
        ValueError: no run with parameters stands in ``folder``, or they do not fit its network.
    """
    config = read_config(folder)
    parts = build(config)
    parts.environment.close()
    path = folder / "parameters.npz"
    if not path.is_file():
        raise ValueError(f"{path}: no parameters; the run has not ended. Continue it with: polyak resume {folder}")
    state = parts.agent.init(jax.random.key(config.seed))
    state = state._replace(**load_variables(path, {"params": state.params, "state": state.state}), targets={})
    return _evaluate(parts, state, episodes, evaluation_seed(config.seed) if seed is None else seed, epsilon)


def read_config(folder: pathlib.Path) -> RunConfig:
    """Reads the config of the run in ``folder``.

    Raises:
        ValueError: there is none, or it is not one that this version of polyak knows.
    """
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file; expected the folder of a run. Parameters in a .npz or .safetensors can start a run "
            "(--initial); pickles are never loaded."
        )
    if (folder / "manifest.json").is_file():
        raise ValueError(
            f"{folder} holds an export, not a run. Read it with polyak.load_exported, or start a run from it: "
            f"--initial {folder}"
        )
    if not (folder / "config.json").is_file():
        below = sorted(path.parent.name for path in folder.glob("*/config.json")) if folder.is_dir() else []
        hint = f"Runs below it: {', '.join(below[-5:])}." if below else "Runs are made with: polyak train --out FOLDER"
        raise ValueError(f"{folder}: no run stands there (no config.json). {hint}")
    written = read_json(folder / "config.json")
    if not isinstance(written.get("config"), dict):
        raise ValueError(f'{folder / "config.json"}: got no "config"; the file was changed by hand?')
    try:
        return from_json(written["config"])
    except (ValueError, TypeError) as error:
        raise _of_another_version(folder, written, error) or error from None


def _of_another_version(folder: pathlib.Path, written: dict[str, Any], error: Exception) -> ValueError | None:
    """What to say of a config that cannot be read because another version of polyak wrote it."""
    versions = written.get("versions")
    other = versions.get("polyak") if isinstance(versions, dict) else None
    if other is None or other == __version__:
        return None
    newer = _release(str(other)) > _release(__version__)
    way_out = "Upgrade polyak." if newer else f"Read it with polyak {other}."
    return ValueError(
        f"{folder}: the run was made by polyak {other}, {'a newer' if newer else 'another'} version, and this is "
        f"polyak {__version__}, which cannot read its config ({str(error).rstrip('.')}). {way_out}"
    )


def _release(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]


def _first_carry(parts: Parts) -> Carry:
    """The carry at step 0, with the parameters that ``initial`` names, where it names any."""
    config, agent = parts.config, parts.agent
    carry = initial_carry(agent, parts.environment, config.agent, config.seed)
    if config.initial is None:
        return carry
    start = load_initial(config.initial, {"params": carry.agent.params, "state": carry.agent.state})
    return carry._replace(agent=carry.agent._replace(**start, targets=init_targets(agent.targets, **start)))


def _resume(parts: Parts, folder: pathlib.Path, on_record: OnRecord, report: Report) -> dict[str, Any] | None:
    config = parts.config
    checkpoint.remove_unfinished(folder / "checkpoints")
    if checkpoint.steps_saved(folder / "checkpoints"):
        # A checkpoint has all of the parameters: what a warm start began with is not needed any more.
        carry = initial_carry(parts.agent, parts.environment, config.agent, config.seed)
        try:
            carry, metrics_bytes = restore_carry(carry, parts.environment, folder / "checkpoints")
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
    else:  # a run that was killed before its first checkpoint begins again
        carry, metrics_bytes = _first_carry(parts), 0
    if carry.steps >= config.steps and (folder / "evaluation.json").exists():
        report(f"{folder} ended at step {carry.steps}; nothing is left to do.")
        return read_json(folder / "evaluation.json")
    report(f"resuming {folder} at step {carry.steps}")
    return _run(parts, carry, folder, metrics_bytes, on_record, report)


def _run(
    parts: Parts, carry: Carry, folder: pathlib.Path, metrics_bytes: int, on_record: OnRecord, report: Report
) -> dict[str, Any] | None:
    config, checkpoints = parts.config, folder / "checkpoints"
    saved, failures = carry.steps if checkpoint.steps_saved(checkpoints) else -1, 0
    with interrupts() as interrupted, JsonlWriter(folder / "metrics.jsonl", at=metrics_bytes) as metrics:
        if saved < 0:
            save_carry(carry, parts.environment, checkpoints, metrics.position())
            saved = carry.steps
        loop = host_loop(
            parts.agent,
            parts.environment,
            config.agent,
            carry,
            steps=config.steps,
            record_every=config.log_every,
            yield_every=config.checkpoint_every,
            stop=interrupted.is_set,
        )
        for carry, record in loop:
            if record:
                metrics.write(record)
                on_record(record)
            due = carry.steps // config.checkpoint_every > saved // config.checkpoint_every
            if carry.steps > saved and (due or interrupted.is_set() or carry.steps >= config.steps):
                try:
                    with undisturbed():
                        save_carry(carry, parts.environment, checkpoints, metrics.position())
                    saved, failures = carry.steps, 0
                except OSError as error:
                    failures += 1
                    if failures == SAVES_THAT_MAY_FAIL or interrupted.is_set():
                        raise
                    report(f"{error}; the run goes on, and the checkpoint of step {saved} is kept")
        if interrupted.is_set() and carry.steps < config.steps:
            parts.environment.close()
            report(f"interrupted at step {carry.steps}, saved; continue with: polyak resume {folder}")
            return None
    return _finish(parts, carry, folder)


def _finish(parts: Parts, carry: Carry, folder: pathlib.Path) -> dict[str, Any]:
    parts.environment.close()
    evaluated = evaluation_state(carry.agent)
    save_variables(folder / "parameters.npz", {"params": evaluated.params, "state": evaluated.state})
    seed = evaluation_seed(parts.config.seed)
    result = _evaluate(parts, carry.agent, parts.config.evaluation_episodes, seed, epsilon=0.0)
    write_json(folder / "evaluation.json", result)
    rule = next(iter(parts.agent.targets.values())).rule
    title = f"{agent_name(parts.config.agent)} on {parts.config.env}, target {rule}"
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
