"""Flags of each command of the command line; the docstrings are the help. The module imports nothing heavy."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from ..agents_table import Format as AgentsFormat
from ..tables import TableFormat

Statistic = Literal["iqm", "mean", "median"]  # of reports/statistics.py; a test compares them
Preset = Literal["classic", "minatar", "atari"]  # of agents/presets.py; a test compares them


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train an agent: progress while it runs, a folder with all results at the end.

    Attributes:
        preset: Name of the settings that the agent begins with; flags replace them.
        seeds: Number of seeds, from --seed on; several are trained in processes side by side, and compared at the end.
        out: Folder of the run, new or empty; None makes one under runs/.
        config: File config.json of another run, whose settings the run begins with; flags replace them. It holds the
            agent and the preset.
        quiet: Whether to print no progress.
    """

    preset: Preset = "classic"
    seeds: int = 1
    out: pathlib.Path | None = None
    config: pathlib.Path | None = None
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class SweepCommand:
    """Train every combination of settings and seeds: lanes of one compiled program, and one table at the end.

    A flag with several values is an axis of the grid.

    Attributes:
        preset: Name of the settings that the agent begins with; flags replace them.
        seeds: Number of seeds of each setting, from --seed on.
        lanes: Order of the lanes on a device: map runs one after the other and equals single runs to the bit, vmap runs
            all as one batch and equals them to rounding; auto is map on CPU, and vmap on other devices.
        out: Folder of the sweep, new or empty; None makes one under runs/.
        config: File config.json of another run, whose settings the lanes begin with; flags replace them. It holds the
            agent and the preset.
        quiet: Whether to print no progress.
    """

    preset: Preset = "classic"
    seeds: int = 1
    lanes: Literal["auto", "map", "vmap"] = "auto"
    out: pathlib.Path | None = None
    config: pathlib.Path | None = None
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class PretrainCommand:
    """Pretrain an encoder on images: probes of its features while it runs, a folder with all results at the end.

    Attributes:
        out: Folder of the run, new or empty; None makes one under runs/.
        quiet: Whether to print no progress.
    """

    out: pathlib.Path | None = None
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class CheckCommand:
    """Check an environment: one line for each rule of the loops, and its speed. The exit status is 1 if a check failed.

    Attributes:
        env: Functional environment, module:NAME of a FunctionalEnvironment or of a function that makes one; or id,
            class or function of a Gymnasium environment, as for polyak train.
        env_kwargs: Keyword arguments of the environment, as a JSON object.
        wrapper: Wrappers of the environment, module:wrap, the innermost first; repeat the option for several.
        steps: Number of steps of each environment under random legal actions.
        num_envs: Number of environments that are stepped together; a Gymnasium environment is checked alone.
    """

    env: tyro.conf.Positional[str]
    env_kwargs: str = "{}"
    wrapper: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="MODULE:WRAP")] = ()
    steps: int = 1_000
    num_envs: int = 16


@dataclasses.dataclass(frozen=True)
class RecordFramesCommand:
    """Record images for polyak pretrain: the observations of an environment under uniformly random actions.

    Attributes:
        env: Id of a Gymnasium environment whose observations are images.
        out: File to write, a .npz.
        steps: Number of observations.
        frame_stack: Number of frames of an observation; that of the agent that will start from the encoder.
        seed: Seed of the environment and of the actions.
    """

    env: tyro.conf.Positional[str]
    out: pathlib.Path
    steps: int = 5_000
    frame_stack: int = 1
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class ResumeCommand:
    """Continue a run from its newest checkpoint, with the results of a run that never stopped.

    Attributes:
        run: Folder of the run.
        steps: Number of environment steps at which the run ends now, also of a run that has ended; None changes
            nothing.
        quiet: Whether to print no progress.
    """

    run: tyro.conf.Positional[pathlib.Path]
    steps: int | None = None
    quiet: bool = False


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Play whole episodes with the parameters of a run, in environments of their own.

    Attributes:
        run: Folder of the run.
        episodes: Number of episodes.
        seed: Seed of the environments; None for the seed of the run's own evaluation.
        epsilon: Probability of a random action.
        checkpoint: Parameters to evaluate: newest, best or the step of a checkpoint, also of a run that has not ended;
            None for the parameters at the end.
    """

    run: tyro.conf.Positional[pathlib.Path]
    episodes: int = 20
    seed: int | None = None
    epsilon: float = 0.0
    checkpoint: str | None = None


@dataclasses.dataclass(frozen=True)
class RecordCommand:
    """Write a video of greedy episodes of a run, or an animated GIF if ffmpeg is not installed.

    Attributes:
        run: Folder of the run.
        out: File to write, a .mp4 or a .gif; None makes episode.mp4 or episode.gif in the run's folder.
        episodes: Number of episodes.
        seed: Seed of the environment; None for the seed of the run's own evaluation.
        checkpoint: Parameters to play with: newest, best or the step of a checkpoint; None for those at the end.
    """

    run: tyro.conf.Positional[pathlib.Path]
    out: pathlib.Path | None = None
    episodes: int = 1
    seed: int | None = None
    checkpoint: str | None = None


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Write the trained network of a run for other programs: parameters by name, and a manifest in JSON.

    Attributes:
        run: Folder of the run.
        out: Folder to write, new or empty; None makes export/ in the run's folder.
        format: Format of the file of parameters.
        checkpoint: Parameters to export: newest, best or the step of a checkpoint, also of a run that has not ended;
            None for the parameters at the end.
    """

    run: tyro.conf.Positional[pathlib.Path]
    out: pathlib.Path | None = None
    format: Literal["safetensors", "npz"] = "safetensors"
    checkpoint: str | None = None


@dataclasses.dataclass(frozen=True)
class CompareCommand:
    """Compare runs over their seeds in a table and in figures. Runs that have not ended are shown too.

    Attributes:
        runs: Folders of runs, or folders that hold runs. Groups and their colors are in this order.
        threshold: Return; with it, the table has the environment steps to reach it, in training and by evaluations.
        window: Number of training episodes whose mean is a training return.
        group_by: Names of config fields, or agent. Runs with equal values of these fields are one group. By default,
            runs that differ only in seed and environment are one group.
        label: Names of groups, each as GROUP=NAME. GROUP is a label in the table, or a field (target=none) or a value
            (none) in it that no other group has.
        statistics: Statistics over seeds, with a line for each: iqm (interquartile mean), mean, median. A CSV always
            has all three.
        improvement: Whether to print the probability of improvement of each group over each later one, instead of the
            returns.
        format: Format of the table.
        caption: Whether to print the captions of the table and of the figures.
        figure: File for the learning curves, which ends in .png, .pdf or .svg.
        profile: File for the performance profiles (fraction of runs above each return), which ends in .png, .pdf or
            .svg.
        final_score: File for the final scores over the numbers in which the runs differ (period or step size of the
            target, learning rate), which ends in .png, .pdf or .svg.
        heat_map: File for the final scores over two fields in which the runs differ, which ends in .png, .pdf or .svg.
        size: Width and height of a figure in inches; None fits them to the panels and the legend.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[pathlib.Path, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(one or more)"),
    ]
    threshold: float | None = None
    window: int = 100
    group_by: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD [FIELD ...]")] = ()
    label: Annotated[tuple[str, ...], tyro.conf.arg(metavar="GROUP=NAME [GROUP=NAME ...]")] = ()
    statistics: tuple[Statistic, ...] = ("iqm",)
    improvement: bool = False
    format: TableFormat = "text"
    caption: bool = True
    figure: pathlib.Path | None = None
    profile: pathlib.Path | None = None
    final_score: pathlib.Path | None = None
    heat_map: pathlib.Path | None = None
    size: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="WIDTH HEIGHT")] = None


@dataclasses.dataclass(frozen=True)
class AgentsCommand:
    """Print the table of agents, or the difference of two.

    Attributes:
        diff: Names of two agents whose difference is printed.
        preset: Name of the settings that the agents begin with.
        format: Format of the table.
    """

    diff: Annotated[tuple[str, str] | None, tyro.conf.arg(metavar="AGENT AGENT")] = None
    preset: Preset = "classic"
    format: AgentsFormat = "text"
