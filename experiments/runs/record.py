"""Recording of a run's greedy episodes: a video if ffmpeg is installed, otherwise an animated GIF."""

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ..environments.functional.types import FunctionalEnvironment
from ..environments.make import adapt, make_one, recipe
from ..environments.types import EnvironmentFailure
from ..environments.worker import Recipe
from ..loops.evaluation import Evaluator, evaluation_seed
from .build import Parts, build
from .config import RunConfig, without_workers
from .evaluation import parameters_at, read_parameters
from .folders import read_config

FPS = 30


def record(
    folder: pathlib.Path,
    out: pathlib.Path | None = None,
    *,
    episodes: int = 1,
    seed: int | None = None,
    checkpoint: str | None = None,
    given: Mapping[str, Any] = {},
) -> pathlib.Path:
    """Play greedy episodes with the parameters of a run and write the rendered frames.

    Args:
        folder: Folder of the run.
        out: File to write, ``.mp4`` (needs ffmpeg) or ``.gif``. None writes ``episode.mp4``, or ``episode.gif`` without
            ffmpeg, to the folder of the run.
        episodes: Number of episodes.
        seed: Seed of the environment; None for the seed of the final evaluation.
        checkpoint: ``newest``, ``best`` or the step of a checkpoint; None for the final parameters.
        given: Objects passed from Python, by their text in the config.

    Returns:
        Path of the file.

    Raises:
        ValueError: if ``folder`` contains no run with these parameters, the file has another suffix or cannot be
            written, or the environment does not render images.
    """
    ffmpeg = shutil.which("ffmpeg")
    path = out or folder / f"episode.{'mp4' if ffmpeg else 'gif'}"
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"out: got {path}; expected a file that ends in .mp4 or .gif.")
    if path.suffix == ".mp4" and ffmpeg is None:
        raise ValueError(f"out: got {path}, and ffmpeg is not installed. Give a file that ends in .gif.")
    config = without_workers(read_config(folder))
    parameters = parameters_at(folder, checkpoint)
    parts = build(config, given=given)
    parts.environment.close()
    state, scaling = read_parameters(parts, parameters)
    seed = evaluation_seed(config.seed) if seed is None else seed
    rendering = _rendering(config, parts, given)
    try:
        env = make_one(rendering)
    except EnvironmentFailure as error:
        raise ValueError(f"{error}. The environment must support render_mode='rgb_array'.") from error
    frames: list[np.ndarray] = []

    def look() -> None:
        try:
            frame: Any = env.render()
        except gym.error.Error as error:  # a package that draws is not installed
            raise ValueError(f"env: {config.env} cannot be rendered: {error}") from error
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.dtype != np.uint8:
            raise ValueError(
                f"env: {config.env} rendered {type(frame).__name__}; expected an array [H, W, 3] of uint8 with "
                "render_mode='rgb_array'."
            )
        frames.append(frame.copy())

    with contextlib.closing(adapt(env, seed, action_mask=config.action_mask)) as environment:
        Evaluator(parts.agent, config.loop)(
            state, environment, episodes=episodes, seed=seed, scaling=scaling, look=look
        )
    try:
        _write(frames, path, int(env.metadata.get("render_fps") or FPS), ffmpeg)
    except OSError as error:
        raise ValueError(f"out: {path} cannot be written ({error}). Give another file.") from None
    return path


def _rendering(config: RunConfig, parts: Parts, given: Mapping[str, Any]) -> Recipe:
    """Recipe of an environment that renders; for a functional environment, that of Gymnasium with its name."""
    if isinstance(parts.source, FunctionalEnvironment) and config.env not in gym.registry:
        raise ValueError(
            f"env: {config.env} is a functional environment, which renders no images; expected a run on an environment "
            "of Gymnasium, or on its functional counterpart, such as CartPole-v1."
        )
    found = recipe(config.env, config.env_kwargs, config.wrappers, given)
    return found._replace(kwargs={**found.kwargs, "render_mode": "rgb_array"})


def _write(frames: Sequence[np.ndarray], path: pathlib.Path, fps: int, ffmpeg: str | None) -> None:
    height, width, _ = frames[0].shape
    if path.suffix == ".gif":
        from PIL import Image  # installed with matplotlib

        first, *others = (Image.fromarray(frame) for frame in frames)
        first.save(path, save_all=True, append_images=others, duration=max(1000 // fps, 20), loop=0)
        return
    assert ffmpeg is not None
    command = [ffmpeg, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(fps), "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", str(path)]
    done = subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), capture_output=True)
    if done.returncode:
        raise OSError(done.stderr.decode(errors="replace").strip() or f"ffmpeg ended with {done.returncode}")
