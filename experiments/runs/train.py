"""Runs: trained, resumed and evaluated.

Files of a run: ``config.json`` (the config, resolved, with versions), ``metrics.jsonl`` (the records),
``checkpoints/`` (the carry), ``replay.bin`` (the observations of a replay in a file), ``parameters.npz`` (those
evaluated), ``evaluation.json`` and ``learning_curve.png``, and copies of the records by the loggers: ``metrics.csv``,
``tensorboard/``.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ...agents import evaluation_state
from ...agents.agent import encoder_of
from ...updates import LearnerState, init_targets
from ..environments.make import make
from ..environments.types import EnvironmentFailure
from ..loops import normalization
from ..loops.carry import Carry, initial_carry
from ..loops.evaluation import LANES, evaluate, evaluation_seed
from ..loops.host import host_loop
from ..loops.learning import Record
from ..loops.schedules import total_learner_steps
from . import checkpoint, health
from .build import STORAGE, Parts, build, resolved
from .config import RunConfig, without_workers
from .consumers import SAVES_THAT_MAY_FAIL, Report
from .drive import CHECKPOINTS, add_way_on, drive, evaluation_if_ended
from .export import load_initial
from .files import load_variables, locked, save_variables, write_json
from .folders import prepare_folder, read_config, read_config_to_resume, resume_command
from .learning_curve import learning_curve
from .loggers import check_installed
from .records import read_jsonl
from .saving import restore_carry, save_carry

OnRecord = Callable[[Record], None]
OnBegin = Callable[[pathlib.Path, dict[str, Any]], None]


def train(
    config: RunConfig,
    folder: pathlib.Path,
    on_record: OnRecord,
    report: Report,
    on_begin: OnBegin | None = None,
    given: Mapping[str, Any] = {},
) -> dict[str, Any] | None:
    """Train a new run in ``folder``; return its evaluation, or None if it was interrupted.

    Args:
        config: Config of the run.
        folder: Folder, new or empty.
        on_record: Function called with each record.
        report: Function called with each message.
        on_begin: Function called with the folder and the resolved config (``resolved`` in ``config.json``), once both
            are written.
        given: Objects that a program gave, by their text in the config.

    Raises:
        ValueError, TypeError: if an input is wrong, before the first environment step (for example if the parameters of
            ``initial`` do not fit), or if training has diverged.
        EnvironmentFailure: if an environment raised, or its process ended or hung.
        OSError: if the disk is full or gone. A note of these two has the command that continues the run.
    """
    check_installed(config.loggers)
    parts = build(config, folder, given)
    with contextlib.closing(parts.environment):
        if config.replay_storage == "mmap":
            prepare_folder(folder)  # for the replay's file
        try:
            carry = _first_carry(parts)
        except BaseException:  # a run that cannot begin leaves no files
            (folder / STORAGE).unlink(missing_ok=True)
            raise
        if config.replay_storage == "memory":
            prepare_folder(folder)
        with locked(folder):
            write_json(folder / "config.json", described := resolved(parts))
            if on_begin is not None:
                on_begin(folder, described["resolved"])
            return _run(parts, carry, folder, 0, on_record, report)


def resume(
    folder: pathlib.Path,
    on_record: OnRecord,
    report: Report,
    on_begin: OnBegin | None = None,
    given: Mapping[str, Any] = {},
) -> dict[str, Any] | None:
    """Continue a run from its newest checkpoint as if it had never stopped; see :func:`train`.

    Raises:
        ValueError: if no run stands in ``folder``, or its checkpoint is of another run.
        EnvironmentFailure, OSError: as :func:`train`.
    """
    config = read_config_to_resume(folder)
    check_installed(config.loggers)
    with locked(folder):
        parts = build(config, folder, given)
        with contextlib.closing(parts.environment):
            return _resume(parts, folder, on_record, report, on_begin)


def evaluate_run(
    folder: pathlib.Path, episodes: int, seed: int | None, epsilon: float, given: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """Evaluate the parameters of a finished run.

    Raises:
        ValueError: if no run with parameters stands in ``folder``, or they do not fit its network.
    """
    config = read_config(folder)
    parts = build(without_workers(config), given=given)
    parts.environment.close()
    path = folder / "parameters.npz"
    if not path.is_file():
        raise ValueError(f"{path}: no parameters; the run has not ended. Continue it with: {resume_command(folder)}")
    state, scaling = read_parameters(parts, path)
    seed = evaluation_seed(config.seed) if seed is None else seed
    return _evaluate(parts, state, scaling, episodes, seed, epsilon)


def read_parameters(parts: Parts, path: pathlib.Path) -> tuple[LearnerState, normalization.Scaling]:
    """Read the parameters and the scaling of a finished run.

    Returns:
        State of the agent without targets, and the scaling of observations and rewards.

    Raises:
        ValueError: if the file cannot be read, or does not fit the config.
    """
    state = parts.agent.init(jax.random.key(0))._replace(targets={})
    fields = parts.config.loop.normalization
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


def _first_carry(parts: Parts) -> Carry:
    """Carry at step 0, with the parameters of ``initial`` if the config has one."""
    config, agent = parts.config, parts.agent
    carry = initial_carry(agent, parts.environment, parts.replay, config.loop, config.seed)
    if config.initial is None:
        return carry
    of_encoder = config.initial_part == "encoder"
    learnt = {"params": carry.agent.params, "state": carry.agent.state}
    statistics = normalization.without_episodes(carry.normalization)
    if of_encoder:
        template = {name: encoder_of(tree) for name, tree in learnt.items()}
        statistics = statistics._replace(returns=())
    else:
        template = learnt
    start = load_initial(config.initial, {**template, "normalization": statistics}, config.initial_part)
    # The parameters were learnt under these statistics; the run adds its own observations to them.
    moments = start.pop("normalization")._replace(running_return=carry.normalization.running_return)
    if of_encoder:
        moments = moments._replace(returns=carry.normalization.returns)
        start = {name: {**tree, **start[name]} for name, tree in learnt.items()}
    return carry._replace(
        agent=carry.agent._replace(**start, targets=init_targets(agent.targets, **start)),
        normalization=normalization.observe(moments, carry.timestep.observation),
    )


def _resume(
    parts: Parts, folder: pathlib.Path, on_record: OnRecord, report: Report, on_begin: OnBegin | None
) -> dict[str, Any] | None:
    config = parts.config
    if (evaluation := evaluation_if_ended(folder, config.steps, report)) is not None:
        return evaluation
    if checkpoint.steps_saved(folder / CHECKPOINTS):
        # A checkpoint has all of the parameters: what a warm start began with is not needed any more.
        environment, replay, mapped = parts.environment, parts.replay, config.replay_storage == "mmap"
        try:
            carry = initial_carry(parts.agent, environment, replay, config.loop, config.seed, reopen=mapped)
            carry, metrics_bytes = restore_carry(carry, environment, replay, folder / CHECKPOINTS, mapped=mapped)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
    else:  # a run that was killed before its first checkpoint begins again
        carry, metrics_bytes = _first_carry(parts), 0
    report(f"resuming {folder} at step {carry.steps}")
    if on_begin is not None:
        on_begin(folder, resolved(parts)["resolved"])
    return _run(parts, carry, folder, metrics_bytes, on_record, report)


def _run(
    parts: Parts, carry: Carry, folder: pathlib.Path, metrics_bytes: int, on_record: OnRecord, report: Report
) -> dict[str, Any] | None:
    config = parts.config
    mapped_for = _mapped_for(config)
    for text in _settings_warnings(parts):
        report(f"warning: {text}")

    def save(carry: Carry, position: int) -> None:
        save_carry(carry, parts.environment, folder / CHECKPOINTS, position, mapped_for=mapped_for)

    try:
        carry, interrupted = drive(
            config,
            carry,
            folder,
            metrics_bytes,
            loop=lambda carry, stop: _loop(parts, carry, stop),
            save=save,
            watch=health.Watch(parts.replay, config.loop.draw.discount.extremes[1], carry.steps),
            on_record=on_record,
            report=report,
            # The rows that a mapped replay overwrites are in the checkpoints only while they are made in time.
            may_fail=SAVES_THAT_MAY_FAIL if mapped_for is None else 1,
        )
        parts.environment.close()
        if interrupted:
            report(f"interrupted at step {carry.steps}, saved; continue with: {resume_command(folder)}")
            return None
        return _finish(parts, carry, folder)
    except (EnvironmentFailure, OSError) as error:
        add_way_on(error, folder)
        raise


def _mapped_for(config: RunConfig) -> int | None:
    """Number of steps per environment that a kept checkpoint must cover; None for a replay in memory."""
    if config.replay_storage != "mmap":
        return None
    return checkpoint.KEEP * -(-config.checkpoint_every // config.num_envs) + 1


def _settings_warnings(parts: Parts) -> Iterator[str]:
    config = parts.config
    learner_steps = total_learner_steps(config.loop, config.steps, config.num_envs)
    yield from health.of_targets(parts.agent.targets, learner_steps)
    yield from health.of_operations(parts.agent.periodic, learner_steps)
    yield from health.of_exploration(config.agent, config.loop)


def _loop(parts: Parts, carry: Carry, stop: Callable[[], bool]) -> Iterator[tuple[Carry, Record]]:
    config = parts.config
    return host_loop(
        parts.agent,
        parts.environment,
        parts.replay,
        config.loop,
        carry,
        steps=config.steps,
        record_every=config.log_every,
        yield_every=config.checkpoint_every,
        stop=stop,
    )


def _finish(parts: Parts, carry: Carry, folder: pathlib.Path) -> dict[str, Any]:
    evaluated = evaluation_state(parts.agent, carry.agent)
    trees = {
        "params": evaluated.params,
        "state": evaluated.state,
        "normalization": normalization.without_episodes(carry.normalization),
    }
    save_variables(folder / "parameters.npz", trees)
    seed, scaling = evaluation_seed(parts.config.seed), normalization.scaling(carry.normalization)
    result = _evaluate(parts, carry.agent, scaling, parts.config.evaluation_episodes, seed, epsilon=0.0)
    rule = next(iter(parts.agent.targets.values())).rule
    title = f"{parts.config.agent_name} on {parts.config.env}, target {rule}"
    learning_curve(list(read_jsonl(folder / "metrics.jsonl")), folder / "learning_curve.png", title)
    write_json(folder / "evaluation.json", result)  # last: a run with this file has ended
    return result


def _evaluate(
    parts: Parts, state: LearnerState, scaling: normalization.Scaling, episodes: int, seed: int, epsilon: float
) -> dict[str, Any]:
    lanes = max(min(episodes, LANES), 1)
    with contextlib.closing(make(parts.recipe, lanes, seed, action_mask=parts.config.action_mask)) as environment:
        returns = evaluate(
            parts.agent,
            state,
            environment,
            parts.config.loop,
            episodes=episodes,
            seed=seed,
            epsilon=epsilon,
            scaling=scaling,
        )
    error = float(np.std(returns, ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else None
    return {
        "mean": float(np.mean(returns)),
        "standard_error": error,
        "episodes": len(returns),
        "seed": seed,
        "epsilon": epsilon,
        "returns": returns.tolist(),
    }
