"""Runs from Python: the functions ``polyak.train``, ``sweep``, ``resume``, ``evaluate``, ``export`` and others."""

import contextlib
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar, Unpack, get_args

from ..agents import Agent
from ..agents.fields import check_name
from ..agents.presets import DEFAULT_AGENT, DEFAULT_PRESET
from ..agents.presets import register_agent as register_agent
from .reports.comparison import compare as compare
from .reports.progress import Progress
from .reports.sweep_progress import SweepProgress
from .reports.swept import Sweep, finished, resumed
from .runs import folders
from .runs import train as runs
from .runs.config import RunConfig, make_run_config
from .runs.consumers import Callback
from .runs.evaluation import evaluate_run
from .runs.export import Exported, Format, describe, load_exported, write_exported
from .runs.files import read_arrays, read_json
from .runs.finished import Pretrained, Run, load_pretraining, load_run
from .runs.given import as_texts, given_again, path_as_text
from .runs.keywords import PretrainFields, TrainFields
from .runs.pretrain import pretrain as run_pretraining
from .runs.pretrain import resume_pretraining
from .runs.pretrain_config import PretrainConfig, make_pretrain_config
from .runs.signature import with_keywords
from .runs.sweep import Choice
from .runs.sweep import sweep as run_sweep
from .runs.sweep_fields import axes_of
from .runs.sweep_grid import make_grid
from .runs.sweep_saving import read_sweep

__all__ = [
    "Exported",
    "Pretrained",
    "Run",
    "Sweep",
    "evaluate",
    "export",
    "load",
    "load_exported",
    "load_pretrained",
    "pretrain",
    "register_agent",
    "resume",
    "sweep",
    "train",
]

Folder = str | pathlib.Path
AnyRun = TypeVar("AnyRun", Run, Pretrained)


@with_keywords(TrainFields)
def train(
    agent: str | Callable[..., Agent] | None = None,
    *,
    preset: str | None = None,
    config: RunConfig | Folder | None = None,
    out: Folder | Literal[False] | None = None,
    quiet: bool = True,
    callbacks: Sequence[Callback] = (),
    **fields: Unpack[TrainFields],
) -> Run:
    """Train an agent, as ``polyak train`` does.

    Args:
        agent: Name of the agent, by default n_step_double_dqn; or a function of the signature of
            :func:`polyak.agents.make_agent`, which makes an agent of your own from the default's configs.
        preset: Name of the numbers that the agent begins with; by default classic.
        config: Config of the run, or the path of the ``config.json`` of another run, instead of names and fields.
        out: Folder of the run, new or empty; by default one under ``runs/``. False takes a temporary one, which is
            removed with the run that is returned; a run that is interrupted or fails leaves it.
        quiet: Whether to print no progress.
        callbacks: Functions ``(carry, record) -> bool | None``, called with each record; one that returns True ends the
            run, which is then evaluated. An error that one raises ends it too, and the run can be resumed.
        **fields: Fields of the run (``env``, ``steps``, ``seed``, ...), of the agent (``target``, ``num_atoms``, ...)
            and of the loop (``n_steps``, ``epsilon``, ...), by name; unions (``head``, ``core``, ...) by the name of a
            kind or by a part, schedules by a number or a text. ``env`` takes an id, a class or function that makes an
            environment, or an instance, which is copied; ``env_kwargs`` a dictionary, and ``wrappers`` functions of an
            environment that return one, the innermost first. ``network`` takes a network, or a function of the spec of
            the observations that returns one, ``terms`` a dictionary of weights and terms of the loss (see
            :func:`polyak.agents.make_agent`), and ``name`` the name under which the run is shown. ``initial`` takes a
            path, or a run that has ended; ``initial_part="encoder"`` takes a pretraining run too.

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
    given: Mapping[str, Any] = {}
    if isinstance(config, str | pathlib.Path):
        config = folders.read_config_file(pathlib.Path(config))
    if config is None:
        texts, given = as_texts(fields if isinstance(agent, str | None) else {**fields, "agent": agent})
        name = agent if isinstance(agent, str) else DEFAULT_AGENT
        config = make_run_config(name, preset or DEFAULT_PRESET, texts)
    elif fields or agent is not None or preset is not None:
        names = {"agent": agent, "preset": preset}
        beside = ", ".join([*(f"{name} {value!r}" for name, value in names.items() if value is not None), *fields])
        raise ValueError(f"config: got a whole config and {beside} as well; give one or the other.")
    elif not isinstance(config, RunConfig):
        raise TypeError(
            f"config: got {type(config).__name__}; expected a RunConfig, or the path of a config.json. Make one with "
            "make_run_config of polyak.experiments.runs.config, or give the name of an agent and fields."
        )
    with _folder(out, config) as folder, Progress(config, quiet=quiet) as progress:
        shown = progress.show, progress.say, progress.begin
        return _kept(_finished(runs.train(config, folder, *shown, given, callbacks), folder, given), out)


@with_keywords(TrainFields)
def sweep(
    agent: str | None = None,
    *,
    seeds: int = 1,
    preset: str | None = None,
    lanes: Choice = "auto",
    out: Folder | None = None,
    quiet: bool = True,
    **fields: Any,
) -> Sweep:
    """Train every combination of settings and seeds, as ``polyak sweep`` does.

    On CPU, JAX has one device unless ``XLA_FLAGS`` asks for more before JAX is imported; ``polyak sweep`` has one for
    each core.

    Args:
        agent: Name of the agent, by default n_step_double_dqn.
        seeds: Number of seeds of each setting, from ``seed`` on.
        preset: Name of the numbers that the agent begins with; by default classic.
        lanes: Whether the lanes of a device run one after the other (``map``) or as one batch (``vmap``); ``auto`` is
            ``map`` on CPU, ``vmap`` on other devices.
        out: Folder of the sweep, new or empty; by default one under ``runs/``.
        quiet: Whether to print no progress.
        **fields: Fields as of :func:`train`. A list in place of a value is an axis of the grid, and a list of tuples
            where the value is a tuple (``hidden_sizes``).

    Raises:
        ValueError, TypeError: as :func:`train`, or if an axis is empty, repeats a value or cannot be an axis, or the
            lanes do not fit into memory; before anything is compiled.
        KeyboardInterrupt: if interrupted; the sweep is saved, and :func:`resume` continues it.

    >>> import tempfile
    >>> fields = {"steps": 300, "learning_starts": 100, "hidden_sizes": (8,), "evaluation_episodes": 1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = sweep("dqn", target=["none", "periodic:50"], seeds=2, out=f"{folder}/sweep", **fields)
    ...     runs = found.lanes
    >>> [run.config.agent.target for run in runs], list(found.ends)[-1]
    (['none', 'none', 'periodic:50', 'periodic:50'], 'periodic-50/seed1')
    """
    single, axes, given = axes_of(fields)
    grid = make_grid(agent or DEFAULT_AGENT, preset or DEFAULT_PRESET, single, axes, seeds)
    folder = pathlib.Path(out) if out is not None else folders.default_sweep_folder(grid.lanes[0].config, axes)
    with SweepProgress(grid, quiet=quiet) as progress:
        ends = run_sweep(grid, folder, progress.show, progress.say, lanes=lanes, given=given)
    return finished(read_sweep(folder), ends, given)


@with_keywords(PretrainFields)
def pretrain(
    method: str = "byol",
    *,
    out: Folder | Literal[False] | None = None,
    quiet: bool = True,
    **fields: Unpack[PretrainFields],
) -> Pretrained:
    """Pretrain an encoder on images, as ``polyak pretrain`` does.

    Args:
        method: Name of the method, ``byol``.
        out: As of :func:`train`.
        quiet: Whether to print no progress.
        **fields: Fields of the run (``data``, ``steps``, ``seed``, ...) and of the method (``target``, ``torso``, ...)
            by name; unions (``predictor``, ``optimizer``) by the name of a kind or by a part.

    Raises:
        ValueError, TypeError: if a field does not exist, belongs to a part that is not there or is out of range, or the
            images cannot be read, before the first gradient step.
        KeyboardInterrupt: if interrupted; the run is saved, and :func:`resume` continues it.

    >>> import numpy, tempfile
    >>> sizes = {"hidden_sizes": (8,), "projector_hidden": 8, "projection_size": 4, "predictor_hidden": 8}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     numpy.savez(f"{folder}/noise.npz", images=numpy.random.default_rng(0).random((20, 8, 8)))
    ...     run = pretrain("byol", data=f"{folder}/noise.npz", steps=2, batch_size=4, out=f"{folder}/run", **sizes)
    >>> run.encode(numpy.zeros((3, 8, 8, 1), numpy.float32)).shape, run.evaluation["encoder"]
    ((3, 8), {})
    """
    config = make_pretrain_config(method, {**fields, **path_as_text("data", fields)})
    with _folder(out, config) as folder, Progress(config, quiet=quiet) as progress:
        shown = progress.show, progress.say, progress.begin
        return _kept(_pretrained(run_pretraining(config, folder, *shown), folder), out)


def resume(
    folder: Folder,
    *,
    steps: int | None = None,
    callbacks: Sequence[Callback] = (),
    quiet: bool = True,
    **objects: Any,
) -> Run | Pretrained | Sweep:
    """Continue a run that was stopped or killed, as if it had not been; a pretraining run or a sweep too.

    Args:
        folder: Folder of the run.
        steps: Number of environment steps at which the run ends now, also of a run that has ended; None changes
            nothing. Schedules and rules over a part of the run are those of the longer run from here on.
        callbacks: As of :func:`train`.
        quiet: Whether to print no progress.
        **objects: ``env``, ``wrappers``, ``network``, ``terms`` and ``agent``, where the run was begun with objects
            that no module has.

    Raises:
        ValueError: if no run stands in ``folder``, or it cannot be continued.
        KeyboardInterrupt: if interrupted again; the run is saved.
    """
    folder = pathlib.Path(folder)
    if folders.is_sweep(folder):
        return resumed(folder, steps, callbacks, quiet, objects)
    config, given = folders.read_any_config_to_resume(folder), given_again(objects)
    with Progress(config, quiet=quiet) as progress:
        shown = progress.show, progress.say, progress.begin
        if isinstance(config, PretrainConfig):
            if steps is not None:
                raise ValueError("steps: a pretraining run is not extended; its learning rate has fallen to 0.")
            return _pretrained(resume_pretraining(folder, *shown), folder)
        return _finished(runs.resume(folder, *shown, given, callbacks, steps), folder, given)


def load_pretrained(folder: Folder) -> Pretrained:
    """Read a finished pretraining run; its images are not read.

    Raises:
        ValueError: if no finished pretraining run stands in ``folder``, or a file of it does not fit.
    """
    return load_pretraining(pathlib.Path(folder))


def load(folder: Folder, *, checkpoint: str | int | None = None, **objects: Any) -> Run:
    """Read a run.

    Args:
        folder: Folder of the run.
        checkpoint: ``newest``, ``best`` (with ``evaluate_every``) or the step of a checkpoint, also of a run that has
            not ended; None for the parameters of a run that has.
        **objects: As for :func:`resume`.

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
    return load_run(pathlib.Path(folder), given_again(objects), _name_of(checkpoint))


def evaluate(
    run: Run | Folder,
    *,
    episodes: int = 20,
    seed: int | None = None,
    epsilon: float = 0.0,
    checkpoint: str | int | None = None,
    **objects: Any,
) -> dict[str, Any]:
    """Play whole episodes with the parameters of a run, in environments of their own.

    Args:
        run: Run, or its folder.
        episodes: Number of episodes.
        seed: Seed of the environments; by default the seed of the run's own evaluation.
        epsilon: Probability of a random action.
        checkpoint: As of :func:`load`.
        **objects: As for :func:`resume`; a run remembers its own.

    Returns:
        ``mean``, ``standard_error``, ``episodes``, ``seed``, ``epsilon`` and ``returns``.

    Raises:
        ValueError: if there is no finished run, fewer than one episode, or an epsilon outside [0, 1].
    """
    folder, given = (run.folder, run.given) if isinstance(run, Run) else (pathlib.Path(run), {})
    return evaluate_run(folder, episodes, seed, epsilon, {**given, **given_again(objects)}, _name_of(checkpoint))


def export(
    run: Run | Folder,
    folder: Folder | None = None,
    *,
    format: Format = "safetensors",
    checkpoint: str | int | None = None,
) -> pathlib.Path:
    """Export the trained network of a run: its parameters, and a manifest that describes them.

    ``manifest.json`` has the format's and polyak's version, the run's whole config (agent and environment), the
    observation's shape and dtype, the number of actions, the network (what ``polyak.networks`` builds it from, and in
    words), the name, shape, dtype and SHA-256 of each array, the run's evaluation and the versions it ran on.

    Args:
        run: Run, or its folder.
        folder: Folder to write, new or empty; by default ``export`` in the run's folder.
        format: Format of the file of arrays, ``safetensors`` or ``npz``.
        checkpoint: As of :func:`load`, where ``run`` is a folder.

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
    run = run if isinstance(run, Run) else load(run, checkpoint=checkpoint)
    folder = pathlib.Path(folder) if folder is not None else run.folder / "export"
    about = {
        **describe(run.config, run.spec, run.variables.state),
        "evaluation": run.evaluation,
        "versions": read_json(run.folder / "config.json").get("versions"),
    }
    arrays = read_arrays(run.parameters)
    folders.prepare_folder(folder)
    write_exported(folder, arrays, about, format)
    return folder


@contextlib.contextmanager
def _folder(out: Folder | Literal[False] | None, config: RunConfig | PretrainConfig) -> Iterator[pathlib.Path]:
    """Folder of a new run; a temporary one that nothing was written to is removed."""
    if out is None:
        folder = folders.default_folder(config)
    else:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="polyak-") if out is False else out)
    try:
        yield folder
    finally:
        if out is False:
            with contextlib.suppress(OSError):  # it holds a run
                folder.rmdir()


def _kept(run: AnyRun, out: Folder | Literal[False] | None) -> AnyRun:
    """The run; a temporary folder is removed when nothing refers to it any more, or at exit."""
    if out is False:
        weakref.finalize(run, shutil.rmtree, run.folder, ignore_errors=True)
    return run


def _name_of(checkpoint: str | int | None) -> str | None:
    return None if checkpoint is None else str(checkpoint)


def _finished(result: dict[str, Any] | None, folder: pathlib.Path, given: Mapping[str, Any]) -> Run:
    if result is None:
        raise KeyboardInterrupt(f"the run was interrupted and saved; continue it with polyak.resume({str(folder)!r})")
    return load_run(folder, given)


def _pretrained(result: dict[str, Any] | None, folder: pathlib.Path) -> Pretrained:
    if result is None:
        raise KeyboardInterrupt(f"the run was interrupted and saved; continue it with polyak.resume({str(folder)!r})")
    return load_pretraining(folder)
