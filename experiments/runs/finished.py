"""Finished runs, read from their folders: config, records, parameters, evaluation, and how to act."""

import dataclasses
import functools
import pathlib
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...agents.byol import BYOL, make_byol
from ...replay.types import EnvironmentSpec
from ...updates import LearnerState, Variables
from ..loops.normalization import NO_SCALING, Scaling
from . import folders
from .build import build
from .config import RunConfig, without_workers
from .evaluation import PARAMETERS, parameters_at, read_parameters
from .files import load_variables, read_json
from .learning_curve import draw_learning_curve
from .policy import Policy, act, make_policy, q_values
from .pretrain import Encode, make_encode, title_of
from .pretrain_config import PretrainConfig
from .pretrain_figures import draw_probes
from .records import columns, read_jsonl
from .shown import html_table, one_line, probes_text, return_text, steps_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run, as it ended or at one of its checkpoints.

    A run can be pickled and sent to another process, where it acts in the same way. A temporary folder (``out=False``)
    is removed with the run that was returned, not with its copies. polyak itself reads no pickles from disk.

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
    scaling: Scaling = NO_SCALING
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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

    def plot(self) -> "Figure":
        """Draw the learning curve: each training episode, the running mean, and the evaluations within the run.

        Returns:
            Figure of matplotlib, which Jupyter shows; ``figure.savefig("curve.pdf")`` saves it.
        """
        return draw_learning_curve(
            self.metrics, f"{self.config.label} on {self.config.env}, target {self.config.agent.target}"
        )

    @functools.cached_property
    def _policy(self) -> Policy:
        return make_policy(self.config, self.variables, self.scaling, self.folder, self.given)

    def _facts(self) -> dict[str, str]:
        at = {} if self.parameters.name == PARAMETERS else {"parameters": self.parameters.name}
        return {
            "agent": self.config.label,
            "environment": self.config.env,
            "target": self.config.agent.target,
            "steps": steps_text(self.metrics, self.config.steps),
            "evaluation": return_text(self.evaluation),
            **at,
            "folder": str(self.folder),
        }

    def __repr__(self) -> str:
        return one_line("Run", self._facts())

    def _repr_html_(self) -> str:
        return html_table("Run", self._facts())

    def __getstate__(self) -> dict[str, Any]:
        """Fields alone: compiled programs are made again where they are needed.

        Raises:
            TypeError: if an object that was given from Python cannot be pickled.
        """
        for text, value in self.given.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                raise TypeError(
                    f"given: the run was begun with {text}, which cannot be pickled ({error}). Define it at the top of "
                    f"a module, or load the run in the other process with polyak.load({str(self.folder)!r})."
                ) from error
        return _fields_of(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Pretrained:
    """A finished pretraining run, which can be pickled.

    Attributes:
        folder: Folder of the run.
        config: Config of the run.
        metrics: Name to array over the records, float64 with NaN where nothing was measured.
        variables: Parameters and module state of the online network: encoder, projector and predictor.
        evaluation: Probes of the encoder, of its initialisation and of the pixels; empty dictionaries without labels.
        image: Shape ``(H, W, C)`` and dtype of an image.
    """

    folder: pathlib.Path
    config: PretrainConfig
    metrics: dict[str, np.ndarray]
    variables: Variables
    evaluation: dict[str, Any]
    image: jax.ShapeDtypeStruct

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Features ``[N, D]`` float32 of images ``[N, H, W, C]``."""
        return self._encode(LearnerState(*self.variables, optimizer_state=(), targets={}), images)

    def plot(self) -> "Figure":
        """Draw the probes over the gradient steps, with those of the pixels; without labels, the projections' spread.

        Returns:
            Figure of matplotlib, which Jupyter shows; ``figure.savefig("probes.pdf")`` saves it.
        """
        return draw_probes(self.metrics, self.evaluation, title_of(self.config))

    @functools.cached_property
    def _encode(self) -> Encode:
        return make_encode(_byol_of(self.config, self.image))

    def _facts(self) -> dict[str, str]:
        return {
            "method": self.config.method,
            "data": self.config.data,
            "target": self.config.byol.target,
            "steps": steps_text(self.metrics, self.config.steps),
            "evaluation": probes_text(self.evaluation),
            "folder": str(self.folder),
        }

    def __repr__(self) -> str:
        return one_line("Pretrained", self._facts())

    def _repr_html_(self) -> str:
        return html_table("Pretrained", self._facts())

    def __getstate__(self) -> dict[str, Any]:
        """Fields alone: compiled programs are made again where they are needed."""
        return _fields_of(self)


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
    metrics = columns(read_jsonl(folder / "metrics.jsonl"))
    ended = folder / "evaluation.json"
    variables, evaluation = Variables(state.params, state.state), read_json(ended) if ended.is_file() else {}
    return Run(folder, path, config, parts.environment.spec, metrics, variables, evaluation, scaling, given)


def load_pretraining(folder: pathlib.Path) -> Pretrained:
    """Read a finished pretraining run; its images are not read.

    Raises:
        ValueError: if no finished pretraining run stands in ``folder``, or a file of it does not fit.
    """
    config = folders.read_pretrain_config(folder)
    _check_ended(folder)
    try:
        described = read_json(folder / "config.json")["resolved"]["image"]
        image = jax.ShapeDtypeStruct(described["shape"], described["dtype"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'}: no image in it ({error}); the file was changed by hand?") from None
    shapes = jax.eval_shape(_byol_of(config, image).init, jax.random.key(0))
    trees = load_variables(folder / PARAMETERS, {"params": shapes.params, "state": shapes.state})
    metrics = columns(read_jsonl(folder / "metrics.jsonl"))
    evaluation = read_json(folder / "evaluation.json")
    return Pretrained(folder, config, metrics, Variables(**trees), evaluation, image)


def _byol_of(config: PretrainConfig, image: jax.ShapeDtypeStruct) -> BYOL:
    return make_byol(config.byol, image, total_learner_steps=config.steps)


def _fields_of(run: Any) -> dict[str, Any]:
    return {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}


def _check_ended(folder: pathlib.Path) -> None:
    if not (folder / "evaluation.json").is_file():
        raise ValueError(
            f"{folder}: the run has not ended. Continue it with polyak.resume({str(folder)!r}), or on the command line "
            f"with: {folders.resume_command(folder)}. A run of an agent can be loaded as it stands, by "
            "checkpoint='newest'."
        )
