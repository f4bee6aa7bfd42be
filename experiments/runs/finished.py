"""Finished runs, read from their folders: config, records, parameters, evaluation, and how to act."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ...replay.types import EnvironmentSpec
from ...updates import LearnerState, Variables
from ..loops.normalization import NO_SCALING, Scaling
from . import folders
from .build import build
from .config import RunConfig, without_workers
from .evaluation import PARAMETERS, parameters_at, read_parameters
from .files import load_variables, read_json
from .policy import Policy, act, make_policy, q_values
from .pretrain import build_pretraining
from .pretrain_config import PretrainConfig
from .records import read_jsonl


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, as it ended or at one of its checkpoints.

    Attributes:
        folder: Folder of the run.
        parameters: File of the parameters, in the folder.
        config: Config of the run.
        spec: Spec of its environment.
        metrics: Name to array over the records, float64 with NaN where nothing was measured; ``returns``, ``lengths``
            and ``ended_at`` are over the training episodes.
        variables: Parameters and module state that are evaluated.
        evaluation: Mean, standard error and returns of the greedy episodes at the end; empty where it has not ended.
        scaling: Scaling of observations and rewards at the end of training.
        given: Objects that were given from Python and that no module has, by their text in the config.
    """

    folder: pathlib.Path
    parameters: pathlib.Path
    config: RunConfig
    spec: EnvironmentSpec
    metrics: dict[str, np.ndarray]
    variables: Variables
    evaluation: dict[str, Any]
    scaling: Scaling = dataclasses.field(default=NO_SCALING, repr=False)
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """Greedy action, an element of the environment's action space.

        Args:
            observation: Observation of the environment, or a batch of them on a first axis; a stack of frames where the
                agent sees stacks.
            action_mask: Legal actions, ``[A]`` or ``[B, A]``, of an environment with ``action_mask``.

        Returns:
            An int, or ``[B]`` int64 for a batch.

        Raises:
            ValueError: if an observation has another shape, is not finite, or is outside its space; if a mask is
                missing or leaves no legal action; if the agent is recurrent.
        """
        return act(self._policy, observation, action_mask)

    def q_values(self, observation: Any) -> np.ndarray:
        """Values of the actions, ``[A]`` float32, or ``[B, A]`` for a batch of observations.

        Raises:
            ValueError: as :meth:`act`.
        """
        return q_values(self._policy, observation)

    @functools.cached_property
    def _policy(self) -> Policy:
        return make_policy(self.config, self.variables, self.scaling, self.folder, self.given)

    def __getstate__(self) -> dict[str, Any]:
        """Fields alone: compiled programs are made again where they are needed."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A finished pretraining run.

    Attributes:
        folder: Folder of the run.
        config: Config of the run.
        metrics: Name to array over the records, float64 with NaN where nothing was measured.
        variables: Parameters and module state of the online network: encoder, projector and predictor.
        evaluation: Probes of the encoder, of its initialisation and of the pixels; empty dictionaries without labels.
        encode: Function from images ``[N, H, W, C]`` to features ``[N, D]``.
    """

    folder: pathlib.Path
    config: PretrainConfig
    metrics: dict[str, np.ndarray]
    variables: Variables
    evaluation: dict[str, Any]
    encode: Callable[[np.ndarray], np.ndarray] = dataclasses.field(repr=False)


def load_run(folder: pathlib.Path, given: Mapping[str, Any] = {}, checkpoint: str | None = None) -> Run:
    """Read a run.

    Args:
        folder: Folder of the run.
        given: Objects that a program gave, by their text in the config.
        checkpoint: ``newest``, ``best`` or the step of a checkpoint; None for the parameters of a run that has ended.

    Raises:
        ValueError: if no such run stands in ``folder``, an object of it was not given, this version of polyak
            cannot read it, or a file of it does not fit.
    """
    config = folders.read_config(folder)
    if checkpoint is None:
        _check_ended(folder)
    path = parameters_at(folder, checkpoint)
    parts = build(without_workers(config), given=given)
    parts.environment.close()
    state, scaling = read_parameters(parts, path)
    metrics = _columns(list(read_jsonl(folder / "metrics.jsonl")))
    ended = folder / "evaluation.json"
    variables, evaluation = Variables(state.params, state.state), read_json(ended) if ended.is_file() else {}
    return Run(folder, path, config, parts.environment.spec, metrics, variables, evaluation, scaling, given)


def load_pretraining(folder: pathlib.Path) -> Pretrained:
    """Read a finished pretraining run; its images must still be where they were.

    Raises:
        ValueError: if no finished pretraining run stands in ``folder``, or a file of it does not fit.
    """
    config = folders.read_pretrain_config(folder)
    _check_ended(folder)
    parts = build_pretraining(config)
    shapes = jax.eval_shape(parts.byol.init, jax.random.key(0))
    trees = load_variables(folder / PARAMETERS, {"params": shapes.params, "state": shapes.state})
    state = LearnerState(**trees, optimizer_state=(), targets={})
    metrics = _columns(list(read_jsonl(folder / "metrics.jsonl")))
    variables = Variables(state.params, state.state)
    evaluation = read_json(folder / "evaluation.json")
    return Pretrained(folder, config, metrics, variables, evaluation, lambda images: parts.encode(state, images))


def _check_ended(folder: pathlib.Path) -> None:
    if not (folder / "evaluation.json").is_file():
        raise ValueError(
            f"{folder}: the run has not ended. Continue it with polyak.resume({str(folder)!r}), or on the command line "
            f"with: {folders.resume_command(folder)}. A run of an agent can be loaded as it stands, by "
            "checkpoint='newest'."
        )


def _columns(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if any(isinstance(value, list) for value in values):
            columns[name] = np.array([item for value in values for item in value or []], np.float64)
        else:
            columns[name] = np.array([np.nan if value is None else value for value in values], np.float64)
    return columns
