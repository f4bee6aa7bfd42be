"""A run: a config, a folder and a loop that fills it; made, resumed and evaluated.

What stands in the folder: ``config.json`` (the config, resolved, with versions), ``metrics.jsonl`` (the records),
``checkpoints/`` (the carry), ``parameters.npz`` (what is evaluated), ``evaluation.json`` and ``learning_curve.png``,
and what the loggers make of the records: ``metrics.csv``, ``tensorboard/``.
"""

import contextlib
import dataclasses
import importlib.metadata
import pathlib
import platform
import re
import shlex
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .. import __version__
from ..agents import Agent, dqn, evaluation_state
from ..networks import Lowering
from ..replay import host
from ..replay.types import EnvironmentSpec
from ..updates import LearnerState, TargetRule, init_targets
from . import checkpoint, concerns, normalization
from .carries import restore_carry, save_carry
from .compilations import compilations
from .config import RunConfig, agent_name, from_json, to_json, without_workers
from .environment import Environments, make
from .evaluation import LANES, evaluate, evaluation_seed
from .export import load_initial
from .figures import learning_curve
from .files import load_variables, locked, read_json, save_variables, write_json
from .host_loop import Carry, Record, batches_per_dispatch, host_loop, initial_carry, mask_spec, total_learner_steps
from .interrupts import interrupts, undisturbed
from .lanes import EnvironmentFailure
from .loggers import check_installed, open_loggers
from .records import JsonlWriter, plain, read_jsonl
from .workers import WorkerEnvironments

Report = Callable[[str], None]
OnRecord = Callable[[Record], None]
OnBegin = Callable[[pathlib.Path, dict[str, Any]], None]
SAVES_THAT_MAY_FAIL = 3  # one after the other, before the run stops


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a config builds: agent and environments, ready for the loop."""

    config: RunConfig
    agent: Agent
    environment: Environments | WorkerEnvironments


def build(config: RunConfig) -> Parts:
    """Makes the agent and the environments of a run.

    Raises:
        ValueError, TypeError: anything in the config that cannot be; no environment has been stepped.
        EnvironmentFailure: the environment raises while it is made.
    """
    environment = _environments(config)
    try:
        return Parts(config, _agent(config, environment.spec), environment)
    except BaseException:
        environment.close()
        raise


def _environments(config: RunConfig) -> Environments | WorkerEnvironments:
    if not config.workers:
        return make(config.env, config.num_envs, config.seed, action_mask=config.action_mask)
    return WorkerEnvironments(
        config.env,
        config.num_envs,
        config.seed,
        workers=config.workers,
        timeout=config.worker_timeout,
        on_failure=config.on_env_failure,
        action_mask=config.action_mask,
    )


def _agent(config: RunConfig, spec: EnvironmentSpec) -> Agent:
    updates_in_all = total_learner_steps(config.agent, config.steps, config.num_envs)
    if updates_in_all < 1:
        raise ValueError(
            f"train_every: got {config.agent.train_every}, and no multiple of it lies between learning_starts "
            f"{config.agent.learning_starts} and steps {config.steps}, so nothing would be learnt. Lower either."
        )
    # Convolutions inside scan collapse on XLA's CPU backend; patches and a matrix product do not.
    scanned = batches_per_dispatch(config.agent, config.num_envs) > 1
    lowering: Lowering = "patches" if scanned and jax.default_backend() == "cpu" else "convolution"
    return dqn(config.agent, spec, total_learner_steps=updates_in_all, lowering=lowering)


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
            "action_mask": spec.action_mask,
            "replay_bytes": host.nbytes(
                spec.observation, (), mask_spec(spec), num_envs=config.num_envs, capacity=capacity
            ),
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
            raise ValueError(
                f"out: {folder} holds a run. Give another folder, or continue it: {_resume_command(folder)}"
            )
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


def train(
    config: RunConfig, folder: pathlib.Path, on_record: OnRecord, report: Report, on_begin: OnBegin | None = None
) -> dict[str, Any] | None:
    """Trains a new run in ``folder``; returns its evaluation, or None when it was interrupted.

    Args:
        config: of the run.
        folder: new or empty.
        on_record: gets each record.
        report: gets each message for a person.
        on_begin: gets the folder and what follows from the config (``resolved`` in ``config.json``), once both stand.

    Raises:
        ValueError, TypeError: bad input, before the first environment step (what ``initial`` names does not fit, say);
            or training has diverged.
        EnvironmentFailure: an environment raised, or its process ended or hung.
        OSError: the disk is full or gone. A note of these two says how to go on.
    """
    check_installed(config.loggers)
    parts = build(config)
    with contextlib.closing(parts.environment):
        carry = _first_carry(parts)
        prepare_folder(folder)
        with locked(folder):
            write_json(folder / "config.json", described := resolved(parts))
            if on_begin is not None:
                on_begin(folder, described["resolved"])
            return _run(parts, carry, folder, 0, on_record, report)


def resume(
    folder: pathlib.Path, on_record: OnRecord, report: Report, on_begin: OnBegin | None = None
) -> dict[str, Any] | None:
    """Continues a run from its newest checkpoint, as if it had never stopped; takes and returns what `train` does.

    Raises:
        ValueError: no run stands in ``folder``, or its checkpoint is of another run.
        EnvironmentFailure, OSError: as :func:`train`.
    """
    config = read_config(folder)
    check_installed(config.loggers)
    with locked(folder):
        parts = build(config)
        with contextlib.closing(parts.environment):
            return _resume(parts, folder, on_record, report, on_begin)


def evaluate_run(folder: pathlib.Path, episodes: int, seed: int | None, epsilon: float) -> dict[str, Any]:
    """Evaluates the parameters of a finished run.

    Raises:
        ValueError: no run with parameters stands in ``folder``, or they do not fit its network.
    """
    config = read_config(folder)
    parts = build(without_workers(config))
    parts.environment.close()
    path = folder / "parameters.npz"
    if not path.is_file():
        raise ValueError(f"{path}: no parameters; the run has not ended. Continue it with: {_resume_command(folder)}")
    state, scaling = read_parameters(parts, path)
    seed = evaluation_seed(config.seed) if seed is None else seed
    return _evaluate(parts, state, scaling, episodes, seed, epsilon)


def read_parameters(parts: Parts, path: pathlib.Path) -> tuple[LearnerState, normalization.Scaling]:
    """Reads what a finished run is evaluated with: a state without targets, and what normalises for it.

    Raises:
        ValueError: the file cannot be read, or does not fit the config.
    """
    state = parts.agent.init(jax.random.key(0))._replace(targets={})
    fields = parts.config.agent
    moments = normalization.initial(
        parts.environment.spec, 0, observations=fields.normalize_observations, rewards=fields.normalize_rewards
    )
    template = {
        "params": state.params,
        "state": state.state,
        "normalization": normalization.without_episodes(moments),
    }
    trees = load_variables(path, template)
    scaling = normalization.scaling(trees.pop("normalization"))
    return state._replace(**trees), scaling


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
    learnt = {"params": carry.agent.params, "state": carry.agent.state}
    statistics = normalization.without_episodes(carry.normalization)
    start = load_initial(config.initial, {**learnt, "normalization": statistics})
    # What the parameters were learnt on was normalised by these; this run's own observations are added to them.
    moments = start.pop("normalization")._replace(running_return=carry.normalization.running_return)
    return carry._replace(
        agent=carry.agent._replace(**start, targets=init_targets(agent.targets, **start)),
        normalization=normalization.observe(moments, carry.timestep.observation),
    )


def _resume_command(folder: pathlib.Path) -> str:
    return f"polyak resume {shlex.quote(str(folder))}"


def _resume(
    parts: Parts, folder: pathlib.Path, on_record: OnRecord, report: Report, on_begin: OnBegin | None
) -> dict[str, Any] | None:
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
    if on_begin is not None:
        on_begin(folder, resolved(parts)["resolved"])
    return _run(parts, carry, folder, metrics_bytes, on_record, report)


def _run(
    parts: Parts, carry: Carry, folder: pathlib.Path, metrics_bytes: int, on_record: OnRecord, report: Report
) -> dict[str, Any] | None:
    try:
        carry, interrupted = _go_on(parts, carry, folder, metrics_bytes, on_record, report)
        parts.environment.close()
        if interrupted:
            report(f"interrupted at step {carry.steps}, saved; continue with: {_resume_command(folder)}")
            return None
        return _finish(parts, carry, folder)
    except (EnvironmentFailure, OSError) as error:
        saved = checkpoint.steps_saved(folder / "checkpoints")
        kept = f"the checkpoint of step {saved[-1]} is kept" if saved else "nothing was saved yet"
        error.add_note(f"{kept}; continue with: {_resume_command(folder)}")
        raise


def _go_on(
    parts: Parts, carry: Carry, folder: pathlib.Path, metrics_bytes: int, on_record: OnRecord, report: Report
) -> tuple[Carry, bool]:
    """Runs the loop from a carry to the end, or to an interrupt; returns where it got, and whether that was one."""
    config, checkpoints = parts.config, folder / "checkpoints"
    saved, failures = carry.steps if checkpoint.steps_saved(checkpoints) else -1, 0
    with (
        interrupts() as interrupted,
        JsonlWriter(folder / "metrics.jsonl", at=metrics_bytes) as metrics,
        open_loggers(config.loggers, folder, carry.steps, read_json(folder / "config.json"), report) as log,
        compilations() as compiled,
    ):
        learner_steps = total_learner_steps(config.agent, config.steps, config.num_envs)
        for text in concerns.of_targets(parts.agent.targets, learner_steps):
            report(f"warning: {text}")
        watch = concerns.Watch(config.agent.discount, carry.steps)
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
        try:
            for carry, record in loop:
                if record:
                    record = plain(record | compiled.record())
                    metrics.write(record)
                    log(record)
                    on_record(record)
                    for text in (*watch(carry, record), *compiled.warnings()):
                        report(f"warning: {text}")
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
        except EnvironmentFailure as failure:
            if not failure.intact:
                raise
            if carry.steps > saved:  # It was yielded last, and stands before the step that failed.
                try:
                    with undisturbed():
                        save_carry(carry, parts.environment, checkpoints, metrics.position())
                except OSError as error:
                    failure.add_note(str(error))
                    raise failure from None
            if not interrupted.is_set():  # A SIGTERM to all processes may reach the workers first.
                raise
        return carry, interrupted.is_set() and carry.steps < config.steps


def _finish(parts: Parts, carry: Carry, folder: pathlib.Path) -> dict[str, Any]:
    evaluated = evaluation_state(carry.agent)
    trees = {
        "params": evaluated.params,
        "state": evaluated.state,
        "normalization": normalization.without_episodes(carry.normalization),
    }
    save_variables(folder / "parameters.npz", trees)
    seed, scaling = evaluation_seed(parts.config.seed), normalization.scaling(carry.normalization)
    result = _evaluate(parts, carry.agent, scaling, parts.config.evaluation_episodes, seed, epsilon=0.0)
    write_json(folder / "evaluation.json", result)
    rule = next(iter(parts.agent.targets.values())).rule
    title = f"{agent_name(parts.config.agent)} on {parts.config.env}, target {rule}"
    learning_curve(list(read_jsonl(folder / "metrics.jsonl")), folder / "learning_curve.png", title)
    return result


def _evaluate(
    parts: Parts, state: LearnerState, scaling: normalization.Scaling, episodes: int, seed: int, epsilon: float
) -> dict[str, Any]:
    if episodes < 1:
        raise ValueError(f"episodes: got {episodes}; expected an integer >= 1.")
    environment = make(parts.config.env, min(episodes, LANES), seed, action_mask=parts.config.action_mask)
    returns = evaluate(parts.agent, state, environment, episodes=episodes, seed=seed, epsilon=epsilon, scaling=scaling)
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
