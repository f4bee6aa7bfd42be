"""Evaluation of a run: of the parameters in its folder, and of the current parameters during training."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ...agents import evaluation_state
from ...updates import LearnerState
from ..environments.make import make
from ..loops import normalization
from ..loops.carry import Carry
from ..loops.evaluation import LANES, Evaluator, evaluation_seed
from ..loops.learning import Record
from ..loops.normalization import Scaling
from .build import Parts, build
from .config import RunConfig, without_workers
from .consumers import Consumer
from .drive import CHECKPOINTS
from .files import load_variables, save_variables, write_json
from .folders import read_config, resume_command
from .records import GREEDY

PARAMETERS, BEST = "parameters.npz", "best.npz"  # files in the folder of a run


def evaluate_run(
    folder: pathlib.Path,
    episodes: int,
    seed: int | None,
    epsilon: float,
    given: Mapping[str, Any] = {},
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Evaluate the parameters of a run.

    Args:
        folder: Folder of the run.
        episodes: Number of episodes.
        seed: Seed of the environments; None for the seed of the final evaluation.
        epsilon: Probability of a random action.
        given: Objects passed from Python, by their text in the config.
        checkpoint: Name of the parameters, see :func:`parameters_at`.

    Raises:
        ValueError: if ``folder`` contains no run with these parameters, or they do not fit its network.
    """
    config = read_config(folder)
    path = parameters_at(folder, checkpoint)
    parts = build(without_workers(config), given=given)
    parts.environment.close()
    state, scaling = read_parameters(parts, path)
    seed = evaluation_seed(config.seed) if seed is None else seed
    return make_evaluation(parts)(state, scaling, episodes, seed, epsilon)


def parameters_at(folder: pathlib.Path, checkpoint: str | None) -> pathlib.Path:
    """File with parameters of a run.

    Args:
        folder: Folder of the run.
        checkpoint: ``newest``, ``best`` or the step of a checkpoint; None for the final parameters.

    Raises:
        ValueError: if there is no such file; the message lists the available ones.
    """
    steps = sorted(int(path.stem) for path in (folder / CHECKPOINTS).glob("*.npz") if path.stem.isdecimal())
    there = {str(step): folder / CHECKPOINTS / f"{step}.npz" for step in steps}
    if steps:
        there["newest"] = there[str(steps[-1])]
    if (folder / BEST).is_file():
        there["best"] = folder / BEST
    if checkpoint is not None:
        if str(checkpoint) in there:
            return there[str(checkpoint)]
        raise ValueError(f"checkpoint: got {checkpoint!r}; {folder} has {', '.join(there) or 'none'}.")
    if (folder / PARAMETERS).is_file():
        return folder / PARAMETERS
    kept = f" Its checkpoints can be read with --checkpoint: {', '.join(there)}." if there else ""
    raise ValueError(
        f"{folder / PARAMETERS}: no parameters; the run has not ended. Continue it with: {resume_command(folder)}."
        f"{kept}"
    )


def save_parameters(parts: Parts, carry: Carry, path: pathlib.Path) -> None:
    """Write the evaluation parameters of a carry, with the normalization statistics."""
    evaluated = evaluation_state(parts.agent, carry.agent)
    trees = {
        "params": evaluated.params,
        "state": evaluated.state,
        "normalization": normalization.without_episodes(carry.normalization),
    }
    save_variables(path, trees)


def read_parameters(parts: Parts, path: pathlib.Path) -> tuple[LearnerState, Scaling]:
    """Read a file written by :func:`save_parameters`.

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


def make_evaluation(parts: Parts) -> Callable[[LearnerState, Scaling, int, int, float], dict[str, Any]]:
    """Make the evaluation function of a run, ``(state, scaling, episodes, seed, epsilon) -> result``.

    It uses separate environments; its program is compiled at the first call.
    """
    evaluators: dict[int, Evaluator] = {}

    def evaluate(state: LearnerState, scaling: Scaling, episodes: int, seed: int, epsilon: float) -> dict[str, Any]:
        lanes = max(min(episodes, LANES), 1)
        evaluator = evaluators.setdefault(lanes, Evaluator(parts.agent, parts.config.loop))
        with contextlib.closing(make(parts.source, lanes, seed, action_mask=parts.config.action_mask)) as environment:
            returns = evaluator(state, environment, episodes=episodes, seed=seed, epsilon=epsilon, scaling=scaling)
        error = float(np.std(returns, ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else None
        return {
            "mean": float(np.mean(returns)),
            "standard_error": error,
            "episodes": len(returns),
            "seed": seed,
            "epsilon": epsilon,
            "returns": returns.tolist(),
        }

    return evaluate


def evaluated(
    found: Iterator[tuple[Carry, Record]], parts: Parts, evaluate: Callable[..., dict[str, Any]]
) -> Iterator[tuple[Carry, Record]]:
    """Add evaluations to the records of a loop: in the first record at or after each ``evaluate_every`` steps."""
    config = parts.config
    before = None
    for carry, record in found:
        if record:
            if is_due(config, carry.steps, before):
                record = record | evaluation_of(carry, config, evaluate)
            before = carry.steps
        yield carry, record


def is_due(config: RunConfig, steps: int, before: int | None) -> bool:
    """Whether a record has an evaluation.

    Args:
        config: Config of the run.
        steps: Number of environment steps at the record.
        before: Number of environment steps at the record before; None at the first record of a run or of its
            continuation.

    >>> config = RunConfig(log_every=500, evaluate_every=1_000)
    >>> is_due(config, 1_000, 500), is_due(config, 1_500, 1_000), is_due(config, 1_000, None)
    (True, False, True)
    """
    if config.evaluate_every is None:
        return False
    last = max(steps - config.log_every, 0) if before is None else before
    return steps // config.evaluate_every > last // config.evaluate_every


def evaluation_of(carry: Carry, config: RunConfig, evaluate: Callable[..., dict[str, Any]]) -> Record:
    """Evaluate a carry of a run; return the fields of its record."""
    seed, scaling = evaluation_seed(config.seed, carry.steps), normalization.scaling(carry.normalization)
    result = evaluate(carry.agent, scaling, config.evaluation_episodes, seed, 0.0)
    return {GREEDY: result["mean"], "greedy_standard_error": result["standard_error"]}


def keep_best(parts: Parts, folder: pathlib.Path, best: float | None) -> Consumer:
    """Consumer that writes the parameters of the best evaluation, and its step and return to ``best.json``.

    Args:
        parts: Parts of the run.
        folder: Folder of the run.
        best: Mean return of the best evaluation so far; None for none.
    """
    highest = best

    def consume(carry: Any, record: Record) -> None:
        nonlocal highest
        mean = record.get(GREEDY)
        if mean is not None and (highest is None or mean > highest):
            highest = mean
            save_parameters(parts, carry, folder / BEST)
            write_json(folder / "best.json", {"step": carry.steps, "return": mean})

    return consume


def best_of(records: Iterator[Mapping[str, Any]]) -> float | None:
    """Highest mean return of the evaluations in the records; None without evaluations.

    >>> best_of(iter([{"step": 1}, {"step": 2, "greedy_return": 3.0}, {"greedy_return": 1.0}]))
    3.0
    """
    return max((record[GREEDY] for record in records if record.get(GREEDY) is not None), default=None)
