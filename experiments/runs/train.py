"""Runs: training and resumption.

Files of a run: ``config.json`` (config, derived values and versions), ``metrics.jsonl`` (records), ``checkpoints/``
(carries), ``replay.bin`` (observations of a memory-mapped replay), ``parameters.npz`` (evaluation parameters),
``evaluation.json``, ``learning_curve.png``, and copies of the records written by the loggers: ``metrics.csv``,
``episodes.csv``, ``tensorboard/``.
"""

import contextlib
import dataclasses
import math
import pathlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...agents.agent import encoder_of
from ...updates import init_targets
from ..environments.make import follows_seed
from ..environments.types import EnvironmentFailure
from ..loops import normalization
from ..loops.carry import Carry, initial_carry
from ..loops.device import device_loop
from ..loops.evaluation import evaluation_seed
from ..loops.host import host_loop
from ..loops.learning import Record
from ..loops.schedules import total_learner_steps
from . import checkpoint, health
from .build import STORAGE, Parts, build, identity, resolved
from .config import RunConfig
from .consumers import SAVES_THAT_MAY_FAIL, Callback, Report
from .drive import CHECKPOINTS, METRICS, add_way_on, draw_safely, drive, evaluation_if_ended
from .evaluation import PARAMETERS, best_of, evaluated, keep_best, make_evaluation, save_parameters
from .export import load_initial
from .files import locked, read_json, write_json
from .folders import prepare_folder, read_config_to_resume, resume_command
from .learning_curve import learning_curve
from .loggers import check_installed
from .mapped import MappedRows
from .records import GREEDY, WINDOW, EpisodeMeans, read_jsonl
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
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any] | None:
    """Train a new run in ``folder``; return its evaluation, or None if it was interrupted.

    Args:
        config: Config of the run.
        folder: Folder, which must be new or empty.
        on_record: Function called with each record.
        report: Function called with each message.
        on_begin: Function called with the folder and the resolved config (``resolved`` in ``config.json``), once both
            are written.
        given: Objects passed from Python, by their text in the config.
        callbacks: Functions of a carry and a record; a function that returns True ends the run, followed by evaluation.

    Raises:
        ValueError, TypeError: if an input is wrong, before the first environment step (for example if the parameters of
            ``initial`` do not fit), or if training has diverged.
        EnvironmentFailure: if an environment raised, or its process ended or hung.
        OSError: if the disk is full or unavailable. For these two, a note has the command that continues the run.
    """
    check_installed(config.loggers)
    parts = build(config, folder, given)
    with contextlib.closing(parts.environment), contextlib.ExitStack() as stack:
        if config.replay_storage == "mmap":  # the folder contains the replay's file
            prepare_folder(folder)
            stack.enter_context(locked(folder))
        try:
            carry = first_carry(parts)
        except BaseException:  # a run that cannot start leaves no files
            (folder / STORAGE).unlink(missing_ok=True)
            raise
        if config.replay_storage == "memory":
            prepare_folder(folder)
            stack.enter_context(locked(folder))
        run_id = secrets.token_hex(8)
        write_json(folder / "config.json", described := resolved(parts, run_id))
        if on_begin is not None:
            on_begin(folder, described["resolved"])
        if not follows_seed(parts.source):
            report(
                "warning: env: two resets with one seed gave different observations, so the environment ignores its "
                "seed. The run cannot be repeated, and a resumed run starts new episodes. Use self.np_random after "
                "super().reset(seed=seed)."
            )
        return _run(parts, carry, folder, 0, on_record, report, callbacks, run_id)


def resume(
    folder: pathlib.Path,
    on_record: OnRecord,
    report: Report,
    on_begin: OnBegin | None = None,
    given: Mapping[str, Any] = {},
    callbacks: Sequence[Callback] = (),
    steps: int | None = None,
) -> dict[str, Any] | None:
    """Continue a run exactly from its newest checkpoint; see :func:`train`.

    Args:
        folder: Folder of the run.
        on_record: Function called with each record.
        report: Function called with each message.
        on_begin: Function called with the folder and the resolved config, as in :func:`train`.
        given: Objects passed from Python, as in :func:`train`.
        callbacks: Functions of a carry and a record, as in :func:`train`.
        steps: New number of environment steps at which the run ends, above the current number; also allowed for a run
            that has ended. Schedules and rules relative to the run's length (25%, cosine) then use the new length.

    Raises:
        ValueError: if ``folder`` contains no run, or the checkpoint belongs to another run.
        EnvironmentFailure, OSError: as :func:`train`.
    """
    config = read_config_to_resume(folder)
    check_installed(config.loggers)
    with locked(folder):
        if steps is not None:
            config = _extended(config, folder, steps)
        elif (
            evaluation := evaluation_if_ended(
                folder, report, f" Extend it with: {resume_command(folder)} --steps STEPS"
            )
        ) is not None:
            return evaluation
        parts = build(config, folder, given)
        with contextlib.closing(parts.environment):
            return _resume(parts, folder, on_record, report, on_begin, callbacks)


def first_carry(parts: Parts) -> Carry:
    """Carry at step 0, with the parameters of ``initial`` if it is set."""
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
    # The parameters were trained with these statistics; the run continues to update them.
    moments = start.pop("normalization")._replace(running_return=carry.normalization.running_return)
    if of_encoder:
        moments = moments._replace(returns=carry.normalization.returns)
        start = {name: {**tree, **start[name]} for name, tree in learnt.items()}
    return carry._replace(
        agent=carry.agent._replace(**start, targets=init_targets(agent.targets, **start)),
        normalization=normalization.observe(moments, carry.timestep.observation),
    )


def _extended(config: RunConfig, folder: pathlib.Path, steps: int) -> RunConfig:
    """Config of the run with more steps; the folder is not changed yet."""
    saved = checkpoint.steps_saved(folder / CHECKPOINTS)
    if not saved:
        raise ValueError(f"steps: {folder} has no checkpoint, from which it could be extended. Start a new run.")
    if steps <= saved[-1]:
        raise ValueError(
            f"steps: got {steps}; the run is at step {saved[-1]}. Give more, as in --steps {2 * saved[-1]}."
        )
    return dataclasses.replace(config, steps=steps)


def _resume(
    parts: Parts,
    folder: pathlib.Path,
    on_record: OnRecord,
    report: Report,
    on_begin: OnBegin | None,
    callbacks: Sequence[Callback],
) -> dict[str, Any] | None:
    config = parts.config
    written = read_json(folder / "config.json")
    run_id = str(written.get("id"))
    if checkpoint.steps_saved(folder / CHECKPOINTS):
        # A checkpoint contains all parameters, so the source of a warm start is not needed.
        environment, replay = parts.environment, parts.replay
        mapped = folder / STORAGE if config.replay_storage == "mmap" else None
        whose = identity(config, run_id)
        try:
            carry = initial_carry(parts.agent, environment, replay, config.loop, config.seed, reopen=mapped is not None)
            carry, metrics_bytes = restore_carry(carry, environment, replay, folder / CHECKPOINTS, whose, mapped=mapped)
        except FileNotFoundError as error:
            raise ValueError(str(error)) from None
    else:  # a run that was killed before its first checkpoint starts again
        carry, metrics_bytes = first_carry(parts), 0
    report(f"resuming {folder} at step {carry.steps}")
    described = resolved(parts, run_id)
    (folder / "evaluation.json").unlink(missing_ok=True)  # an extended run has not ended
    if described["config"] != written["config"]:
        write_json(folder / "config.json", described)
    if on_begin is not None:
        on_begin(folder, described["resolved"])
    return _run(parts, carry, folder, metrics_bytes, on_record, report, callbacks, run_id)


def _run(
    parts: Parts,
    carry: Carry,
    folder: pathlib.Path,
    metrics_bytes: int,
    on_record: OnRecord,
    report: Report,
    callbacks: Sequence[Callback],
    run_id: str,
) -> dict[str, Any] | None:
    config, evaluate = parts.config, make_evaluation(parts)
    written = read_jsonl(folder / METRICS) if (folder / METRICS).is_file() else ()
    earlier = [record for record in written if record["step"] <= carry.steps]
    best, means = best_of(iter(earlier)), EpisodeMeans(WINDOW * config.log_every, earlier)
    mapped = _mapped_rows(config)
    for text in settings_warnings(parts):
        report(f"warning: {text}")

    def save(carry: Carry, position: int) -> None:
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        save_parameters(parts, carry, folder / CHECKPOINTS / f"{carry.steps}.npz")
        whose = identity(config, run_id)
        save_carry(carry, parts.environment, folder / CHECKPOINTS, position, whose, mapped=mapped)
        for path in (folder / CHECKPOINTS).glob("*.npz"):
            if not path.with_suffix("").is_dir():
                path.unlink()

    def reached(carry: Any, record: Record) -> bool:
        return config.stop_at_return is not None and record.get(GREEDY, -math.inf) >= config.stop_at_return

    try:
        carry, interrupted = drive(
            config,
            carry,
            folder,
            metrics_bytes,
            loop=lambda carry, stop: evaluated(_loop(parts, carry, stop, means), parts, evaluate),
            save=save,
            watch=health.Watch(parts.replay, config.loop.draw.discount.extremes[1], carry.steps),
            on_record=on_record,
            report=report,
            also=[keep_best(parts, folder, best)],
            callbacks=[reached, *callbacks],
            # A checkpoint stores the rows that a mapped replay overwrites for a limited time only, so no save may fail.
            may_fail=SAVES_THAT_MAY_FAIL if mapped is None else 1,
        )
        parts.environment.close()
        if interrupted:
            report(f"interrupted at step {carry.steps}, saved; continue with: {resume_command(folder)}")
            return None
        return _finish(parts, carry, folder, evaluate, report)
    except (EnvironmentFailure, OSError, ValueError, TypeError) as error:
        add_way_on(error, folder)
        raise


def _mapped_rows(config: RunConfig) -> MappedRows | None:
    """Rows of a mapped replay for all steps that may follow a checkpoint while it is kept; None in memory."""
    if config.replay_storage != "mmap":
        return None
    return MappedRows(checkpoint.KEEP * -(-config.checkpoint_every // config.num_envs) + 1)


def settings_warnings(parts: Parts) -> Iterator[str]:
    """Warnings about the settings of a run, before it begins."""
    config = parts.config
    learner_steps = total_learner_steps(config.loop, config.steps, config.num_envs)
    yield from health.of_targets(parts.agent.targets, learner_steps)
    yield from health.of_operations(parts.agent.periodic, learner_steps)
    yield from health.of_exploration(config.agent, config.loop)


def _loop(parts: Parts, carry: Carry, stop: Callable[[], bool], means: EpisodeMeans) -> Iterator[tuple[Carry, Record]]:
    config = parts.config
    loop: Callable[..., Iterator[tuple[Carry, Record]]] = device_loop if parts.loop == "device" else host_loop
    found = loop(
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
    for carry, record in found:
        yield carry, record | means.of(record) if record else record


def _finish(
    parts: Parts, carry: Carry, folder: pathlib.Path, evaluate: Callable[..., dict[str, Any]], report: Report
) -> dict[str, Any]:
    save_parameters(parts, carry, folder / PARAMETERS)
    config, scaling = parts.config, normalization.scaling(carry.normalization)
    result = evaluate(carry.agent, scaling, config.evaluation_episodes, evaluation_seed(config.seed), 0.0)
    rule = next(iter(parts.agent.targets.values())).rule
    title = f"{config.label} on {config.env}, target {rule}"
    write_json(folder / "evaluation.json", result)  # a run with this file has ended
    records = list(read_jsonl(folder / METRICS))
    draw_safely(lambda: learning_curve(records, folder / "learning_curve.png", title), report)
    return result
