"""Runs from Python: ``polyak.train``, ``pretrain``, ``resume``, ``load``, ``evaluate``, ``compare`` and ``export``."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ..agents.fields import check_name
from ..agents.presets import DEFAULT_AGENT, DEFAULT_PRESET
from ..replay.types import EnvironmentSpec, TimeStep
from ..updates import LearnerState, Variables
from .loops.normalization import normalize_timestep
from .loops.observations import observation_pipeline
from .reports.comparison import compare as compare
from .reports.progress import Progress
from .runs import folders
from .runs import train as runs
from .runs.build import build
from .runs.config import RunConfig, make_run_config, without_workers
from .runs.export import Exported, Format, describe, load_exported, write_exported
from .runs.files import load_variables, read_arrays, read_json
from .runs.pretrain import build_pretraining, resume_pretraining
from .runs.pretrain import pretrain as run_pretraining
from .runs.pretrain_config import PretrainConfig, make_pretrain_config
from .runs.records import read_jsonl

__all__ = [
    "Exported",
    "Pretrained",
    "Run",
    "evaluate",
    "export",
    "load",
    "load_exported",
    "load_pretrained",
    "pretrain",
    "resume",
    "train",
]

Folder = str | pathlib.Path


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Folder of the run.
        config: Config of the run.
        spec: Spec of its environment.
        metrics: Name to array over the records, float64 with NaN where nothing was measured; ``returns``, ``lengths``
            and ``ended_at`` are over the training episodes.
        variables: Parameters and module state that are evaluated.
        evaluation: Mean, standard error and returns of the greedy episodes at the end.
        act: Function from one observation to the greedy action (shape and dtype as the environment's, a stack of frames
            where the agent sees stacks, a ``Discrete`` observation as its one-hot vector), for agents without recurrent
            state; with ``action_mask``, ``act(observation, action_mask)`` among the legal actions.
    """

    folder: pathlib.Path
    config: RunConfig
    spec: EnvironmentSpec
    metrics: dict[str, np.ndarray]
    variables: Variables
    evaluation: dict[str, Any]
    act: Callable[..., int] = dataclasses.field(repr=False)


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


def train(
    agent: str | None = None,
    *,
    preset: str | None = None,
    config: RunConfig | None = None,
    out: Folder | None = None,
    quiet: bool = True,
    **fields: Any,
) -> Run:
    """Train an agent, as ``polyak train`` does.

    Args:
        agent: Name of the agent; by default n_step_double_dqn.
        preset: Name of the numbers that the agent begins with; by default classic.
        config: Config of the run, instead of names and fields.
        out: Folder of the run, new or empty; by default one under ``runs/``.
        quiet: Whether to print no progress.
        **fields: Fields of the run (``env``, ``steps``, ``seed``, ...), of the agent (``target``, ``num_atoms``, ...)
            and of the loop (``n_steps``, ``epsilon``, ...), by name; unions (``head``, ``core``, ...) by the name of a
            kind or by a part, schedules by a number or a text. ``initial`` takes a path, or a run that has ended;
            ``initial_part="encoder"`` takes a pretraining run too.

    Raises:
        ValueError, TypeError: if a field does not exist (the message names the closest), belongs to a part that is
            not there (the message names the field that brings it) or is out of range, before the first environment
            step.
        KeyboardInterrupt: if interrupted; the run is saved, and :func:`resume` continues it.

    >>> import tempfile
    >>> fields = {"steps": 300, "learning_starts": 100, "hidden_sizes": (8,), "evaluation_episodes": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(env="CartPole-v1", target="incremental:0.01", out=folder, **fields)
    >>> run.config.agent.target, run.metrics["step"].tolist(), run.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
    ('incremental:0.01', [300.0], True)
    """
    if config is None:
        config = _config(agent or DEFAULT_AGENT, preset or DEFAULT_PRESET, fields)
    elif fields or agent is not None or preset is not None:
        names = {"agent": agent, "preset": preset}
        beside = ", ".join([*(f"{name} {value!r}" for name, value in names.items() if value is not None), *fields])
        raise ValueError(f"config: got a whole config and {beside} as well; give one or the other.")
    elif not isinstance(config, RunConfig):
        raise TypeError(
            f"config: got {type(config).__name__}; expected a RunConfig. Make one with make_run_config of "
            "polyak.experiments.runs.config, or give the name of an agent and fields."
        )
    folder = pathlib.Path(out) if out is not None else folders.default_folder(config)
    with Progress(config, quiet=quiet) as progress:
        return _finished(runs.train(config, folder, progress.show, progress.say, progress.begin), folder)


def pretrain(method: str = "byol", *, out: Folder | None = None, quiet: bool = True, **fields: Any) -> Pretrained:
    """Pretrain an encoder on images, as ``polyak pretrain`` does.

    Args:
        method: Name of the method, ``byol``.
        out: Folder of the run, new or empty; by default one under ``runs/``.
        quiet: Whether to print no progress.
        **fields: Fields of the run (``data``, ``steps``, ``seed``, ...) and of the method (``target``, ``torso``, ...)
            by name; unions (``predictor``, ``optimizer``) by the name of a kind or by a part.

    Raises:
        ValueError, TypeError: if a field does not exist, belongs to a part that is not there or is out of range, or the
            images cannot be read, before the first gradient step.
        KeyboardInterrupt: if interrupted; the run is saved, and :func:`resume` continues it.

    >>> import tempfile
    >>> sizes = {"hidden_sizes": (8,), "projector_hidden": 8, "projection_size": 4, "predictor_hidden": 8}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/noise.npz", images=np.random.default_rng(0).random((20, 8, 8)))
    ...     run = pretrain("byol", data=f"{folder}/noise.npz", steps=2, batch_size=4, out=f"{folder}/run", **sizes)
    >>> run.encode(np.zeros((3, 8, 8, 1), np.float32)).shape, run.evaluation["encoder"]
    ((3, 8), {})
    """
    config = make_pretrain_config(method, {**fields, **_as_text("data", fields)})
    folder = pathlib.Path(out) if out is not None else folders.default_folder(config)
    with Progress(config, quiet=quiet) as progress:
        return _pretrained(run_pretraining(config, folder, progress.show, progress.say, progress.begin), folder)


def resume(folder: Folder, *, quiet: bool = True) -> Run | Pretrained:
    """Continue a run that was stopped or killed, as if it had not been; a pretraining run too.

    Raises:
        ValueError: if no run stands in ``folder``, or it cannot be continued.
        KeyboardInterrupt: if interrupted again; the run is saved.
    """
    folder = pathlib.Path(folder)
    config = folders.read_any_config_to_resume(folder)
    with Progress(config, quiet=quiet) as progress:
        shown = progress.show, progress.say, progress.begin
        if isinstance(config, PretrainConfig):
            return _pretrained(resume_pretraining(folder, *shown), folder)
        return _finished(runs.resume(folder, *shown), folder)


def load_pretrained(folder: Folder) -> Pretrained:
    """Read a finished pretraining run; its images must still be where they were.

    Raises:
        ValueError: if no finished pretraining run stands in ``folder``, or a file of it does not fit.
    """
    folder = pathlib.Path(folder)
    config = folders.read_pretrain_config(folder)
    _check_ended(folder)
    parts = build_pretraining(config)
    shapes = jax.eval_shape(parts.byol.init, jax.random.key(0))
    trees = load_variables(folder / "parameters.npz", {"params": shapes.params, "state": shapes.state})
    state = LearnerState(**trees, optimizer_state=(), targets={})
    metrics = _columns(list(read_jsonl(folder / "metrics.jsonl")))
    variables = Variables(state.params, state.state)
    evaluation = read_json(folder / "evaluation.json")
    return Pretrained(folder, config, metrics, variables, evaluation, lambda images: parts.encode(state, images))


def load(folder: Folder) -> Run:
    """Read a finished run.

    Raises:
        ValueError: if no finished run stands in ``folder``, this version of polyak cannot read it, or a file of it does
            not fit.

    >>> import tempfile
    >>> fields = {"steps": 300, "learning_starts": 100, "hidden_sizes": (8,), "evaluation_episodes": 2}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(env="CartPole-v1", out=folder, **fields)
    ...     again = load(folder)
    ...     evaluate(again, episodes=2) == run.evaluation
    True
    >>> again.variables.params["head/q_values"]["w"].shape, again.spec.num_actions
    ((8, 2), 2)
    """
    folder = pathlib.Path(folder)
    config = folders.read_config(folder)
    _check_ended(folder)
    parts = build(without_workers(config))
    parts.environment.close()
    state, scaling = runs.read_parameters(parts, folder / "parameters.npz")
    spec = parts.environment.spec
    shown = observation_pipeline(config.loop, spec).spec.observation

    @jax.jit
    def greedy(observation: Any, action_mask: Any) -> Any:
        masks = jax.tree.map(lambda mask: mask[None], action_mask)
        timestep = normalize_timestep(scaling, TimeStep(observation[None], jnp.zeros(1), jnp.ones(1, bool), masks))
        recurrent_state = parts.agent.initial_recurrent_state(jax.random.key(0), 1)
        return parts.agent.evaluate_act(jax.random.key(0), state, recurrent_state, timestep).action[0]

    def act(observation: Any, action_mask: Any = None) -> int:
        if config.agent.network.core is not None:
            raise ValueError(
                "act: this agent is recurrent, so that its action depends on the whole episode. Play whole episodes "
                f"with polyak.evaluate({str(folder)!r}), or carry its recurrent state (Agent.evaluate_act)."
            )
        found = np.asarray(observation, shown.dtype)
        if found.shape != shown.shape:
            raise ValueError(
                f"observation: got shape {found.shape}; expected {shown.shape}, one "
                "observation. Pass a single observation, without a batch axis."
            )
        if action_mask is None and not config.action_mask:
            return int(greedy(found, ()))
        mask = np.asarray(action_mask, np.bool_)
        if mask.shape != (spec.num_actions,) or not mask.any():
            raise ValueError(
                f"action_mask: got {action_mask!r}; expected {spec.num_actions} of bool or of 0 and 1, one for each "
                "action, and a legal one among them."
            )
        return int(greedy(found, mask))

    metrics = _columns(list(read_jsonl(folder / "metrics.jsonl")))
    variables = Variables(state.params, state.state)
    return Run(folder, config, spec, metrics, variables, read_json(folder / "evaluation.json"), act)


def evaluate(run: Run | Folder, *, episodes: int = 20, seed: int | None = None, epsilon: float = 0.0) -> dict[str, Any]:
    """Play whole episodes with the parameters of a finished run, in environments of their own.

    Args:
        run: Run, or its folder.
        episodes: Number of episodes.
        seed: Seed of the environments; by default the seed of the run's own evaluation.
        epsilon: Probability of a random action.

    Returns:
        ``mean``, ``standard_error``, ``episodes``, ``seed``, ``epsilon`` and ``returns``.

    Raises:
        ValueError: if there is no finished run, fewer than one episode, or an epsilon outside [0, 1].
    """
    return runs.evaluate_run(run.folder if isinstance(run, Run) else pathlib.Path(run), episodes, seed, epsilon)


def export(run: Run | Folder, folder: Folder | None = None, *, format: Format = "safetensors") -> pathlib.Path:
    """Export the trained network of a finished run: its parameters, and a manifest that describes them.

    ``manifest.json`` has the format's and polyak's version, the run's whole config (agent and environment), the
    observation's shape and dtype, the number of actions, the network (what ``polyak.networks`` builds it from, and in
    words), the name, shape, dtype and SHA-256 of each array, the run's evaluation and the versions it ran on.

    Args:
        run: Run, or its folder.
        folder: Folder to write, new or empty; by default ``export`` in the run's folder.
        format: Format of the file of arrays, ``safetensors`` or ``npz``.

    Returns:
        Folder of the export.

    Raises:
        ValueError: if there is no finished run, the format is unknown, or the folder cannot be made.

    >>> import tempfile
    >>> fields = {"steps": 300, "learning_starts": 100, "hidden_sizes": (8,), "evaluation_episodes": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train(env="CartPole-v1", out=f"{folder}/run", **fields)
    ...     exported = load_exported(export(run, f"{folder}/export"))
    >>> exported.manifest["network"]["function"], exported.arrays["params/head/q_values/w"].shape
    ('polyak.networks.value_network', (8, 2))
    """
    check_name(format, get_args(Format), "format")
    run = run if isinstance(run, Run) else load(run)
    folder = pathlib.Path(folder) if folder is not None else run.folder / "export"
    about = {
        **describe(run.config, run.spec, run.variables.state),
        "evaluation": run.evaluation,
        "versions": read_json(run.folder / "config.json").get("versions"),
    }
    arrays = read_arrays(run.folder / "parameters.npz")
    folders.prepare_folder(folder)
    write_exported(folder, arrays, about, format)
    return folder


def _config(agent: str, preset: str, fields: dict[str, Any]) -> RunConfig:
    return make_run_config(agent, preset, {**fields, **_as_text("initial", fields)})


def _as_text(name: str, fields: dict[str, Any]) -> dict[str, str]:
    """A field that is a path, or a run, as a text; nothing where it is neither."""
    value = fields.get(name)
    path = value.folder if isinstance(value, Run | Pretrained) else value
    return {name: str(path)} if isinstance(path, pathlib.Path) else {}


def _check_ended(folder: pathlib.Path) -> None:
    if not (folder / "evaluation.json").is_file():
        raise ValueError(
            f"{folder}: the run has not ended. Continue it with polyak.resume({str(folder)!r}), or on the command line "
            f"with: {folders.resume_command(folder)}"
        )


def _finished(result: dict[str, Any] | None, folder: pathlib.Path) -> Run:
    if result is None:
        raise KeyboardInterrupt(f"the run was interrupted and saved; continue it with polyak.resume({str(folder)!r})")
    return load(folder)


def _pretrained(result: dict[str, Any] | None, folder: pathlib.Path) -> Pretrained:
    if result is None:
        raise KeyboardInterrupt(f"the run was interrupted and saved; continue it with polyak.resume({str(folder)!r})")
    return load_pretrained(folder)


def _columns(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if any(isinstance(value, list) for value in values):
            columns[name] = np.array([item for value in values for item in value or []], np.float64)
        else:
            columns[name] = np.array([np.nan if value is None else value for value in values], np.float64)
    return columns
