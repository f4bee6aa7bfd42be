"""Recording of images from an environment with uniformly random actions, for pretraining."""

import contextlib
import pathlib

import numpy as np

from ...agents.loop_config import LoopConfig, ReplayConfig
from ..environments.make import make
from ..loops.normalization import NO_SCALING
from ..loops.observations import observation_pipeline
from .files import write_arrays
from .images import checked_images


def record_frames(
    env: str, out: pathlib.Path, *, steps: int = 5_000, frame_stack: int = 1, seed: int = 0
) -> np.ndarray:
    """Record observations as an agent sees them, with stacked frames, and write them as ``images`` of a ``.npz``.

    Args:
        env: Id of a Gymnasium environment.
        out: File to write, a ``.npz`` that does not exist yet.
        steps: Number of observations.
        frame_stack: Number of frames of an observation.
        seed: Seed of the environment and of the actions.

    Returns:
        Images, ``[steps, H, W, C]``.

    Raises:
        ValueError: if there is no such environment, its observations are not images of uint8 or of floats in [0, 1], a
            number is below 1, or the file exists, cannot be written, or is not a ``.npz``.
        EnvironmentFailure: if the environment raises.
    """
    if out.suffix != ".npz":
        raise ValueError(f"out: got {out}; expected a file that ends in .npz.")
    if out.exists():
        raise ValueError(f"out: {out} exists. Give another file.")
    for name, number in (("steps", steps), ("frame_stack", frame_stack)):
        if number < 1:
            raise ValueError(f"{name}: got {number}; expected an integer >= 1.")
    config = LoopConfig(replay=ReplayConfig(frame_stack=frame_stack))
    generator = np.random.default_rng(seed)
    with contextlib.closing(make(env, 1, seed)) as environment:
        pipeline = observation_pipeline(config, environment.spec)
        shape = pipeline.spec.observation.shape
        if len(shape) not in (2, 3):
            raise ValueError(f"env: {env} has observations of shape {shape}; expected images, [H, W] or [H, W, C].")
        timestep = environment.reset()
        frames, images = pipeline.init(timestep), list[np.ndarray]()
        while len(images) < steps:
            images.append(np.array(pipeline.view(NO_SCALING, frames, timestep).observation[0]))
            action = generator.integers(environment.spec.num_actions, size=1, dtype=np.int32)
            timestep = environment.step(action).timestep
            frames = pipeline.push(frames, timestep)
    found = checked_images(np.stack(images), None, env).images
    try:
        write_arrays(out, {"images": found})
    except OSError as error:
        raise ValueError(f"out: {out} cannot be written ({error.strerror}). Give another file.") from None
    return found
