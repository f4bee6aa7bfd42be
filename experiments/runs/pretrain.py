"""Pretraining runs: start, resumption and evaluation.

Files of a run: ``config.json``, ``metrics.jsonl``, ``checkpoints/``, ``parameters.npz`` (the online network),
``evaluation.json`` (probes of the encoder, of its initialization and of the pixels), ``learning_curve.png`` (probes
during the run), ``embedding.png`` (features in two dimensions), and copies of the records written by the loggers.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ... import __version__
from ...agents.byol import BYOL, make_byol
from ...updates import LearnerState, rules_by_part
from ..loops.pretraining import PretrainCarry, initial_key, initial_pretrain_carry, pretraining_loop
from . import checkpoint, health
from .consumers import Report
from .drive import CHECKPOINTS, METRICS, add_way_on, draw_safely, drive, evaluation_if_ended
from .files import locked, save_variables, write_json
from .folders import prepare_folder, read_pretrain_config, resume_command
from .images import Images, Split, load_images, split
from .loggers import check_installed
from .pretrain_config import PretrainConfig, to_json
from .pretrain_figures import embedding_figure, probes_figure
from .probes import probe
from .records import read_jsonl

OnRecord = Callable[[dict[str, Any]], None]
OnBegin = Callable[[pathlib.Path, dict[str, Any]], None]
Encode = Callable[[LearnerState, np.ndarray], np.ndarray]
_ENCODED = 500  # number of images encoded at a time


@dataclasses.dataclass(frozen=True)
class PretrainParts:
    """Method and images of a pretraining run, made from its config."""

    config: PretrainConfig
    byol: BYOL
    images: Split

    @functools.cached_property
    def encode(self) -> Encode:
        """Function from the learner's state and images ``[N, H, W, C]`` to features ``[N, D]``."""
        return make_encode(self.byol)


def make_encode(byol: BYOL) -> Encode:
    """Function of the learner's state and images ``[N, H, W, C]`` to features ``[N, D]``, compiled at its first use."""
    compiled = jax.jit(byol.encode)

    def encode(state: LearnerState, images: np.ndarray) -> np.ndarray:
        parts = [images[start : start + _ENCODED] for start in range(0, len(images), _ENCODED)]
        return np.concatenate([np.asarray(compiled(state, part)) for part in parts])

    return encode


def title_of(config: PretrainConfig) -> str:
    """Title of the pictures of a run.

    >>> title_of(PretrainConfig())
    'byol on mnist5k, target incremental:cosine(0.01)'
    """
    return f"{config.method} on {pathlib.Path(config.data).name}, target {config.byol.target}"


def build_pretraining(config: PretrainConfig) -> PretrainParts:
    """Read the images and make the method for them, without writing anything.

    Raises:
        ValueError: if the images cannot be read, or do not fit the encoder.
    """
    images = split(load_images(config.data))
    shape = jax.ShapeDtypeStruct(images.train.images.shape[1:], images.train.images.dtype)
    byol = make_byol(config.byol, shape, total_learner_steps=config.steps)
    jax.eval_shape(byol.init, jax.random.key(0))  # raises if the images do not fit the encoder
    return PretrainParts(config, byol, images)


def pretrain(
    config: PretrainConfig, folder: pathlib.Path, on_record: OnRecord, report: Report, on_begin: OnBegin | None = None
) -> dict[str, Any] | None:
    """Pretrain an encoder in ``folder``; return its evaluation, or None if it was interrupted.

    Args:
        config: Config of the run.
        folder: Folder, which must be new or empty.
        on_record: Function called with each record.
        report: Function called with each message.
        on_begin: Function called with the folder and the resolved config, once both are written.

    Raises:
        ValueError, TypeError: if an input is wrong, before the first gradient step, or if training has diverged.
        OSError: if the disk is full or unavailable; a note has the command that continues the run.
    """
    check_installed(config.loggers)
    parts = build_pretraining(config)
    carry = _first_carry(parts)
    prepare_folder(folder)
    with locked(folder):
        write_json(folder / "config.json", described := resolved(parts))
        if on_begin is not None:
            on_begin(folder, described["resolved"])
        return _run(parts, carry, folder, 0, on_record, report)


def resume_pretraining(
    folder: pathlib.Path, on_record: OnRecord, report: Report, on_begin: OnBegin | None = None
) -> dict[str, Any] | None:
    """Continue a pretraining run exactly from its newest checkpoint; see :func:`pretrain`.

    Raises:
        ValueError: if ``folder`` contains no pretraining run, or the checkpoint belongs to another run.
        OSError: as :func:`pretrain`.
    """
    config = read_pretrain_config(folder)
    check_installed(config.loggers)
    with locked(folder):
        if (evaluation := evaluation_if_ended(folder, report)) is not None:
            return evaluation
        parts = build_pretraining(config)
        carry, metrics_bytes = _first_carry(parts), 0
        if checkpoint.steps_saved(folder / CHECKPOINTS):
            try:
                tree, _, metadata = checkpoint.restore_latest(folder / CHECKPOINTS, carry._asdict())
            except FileNotFoundError as error:
                raise ValueError(str(error)) from None
            carry, metrics_bytes = PretrainCarry(**tree), metadata["metrics_bytes"]
        report(f"resuming {folder} at step {carry.steps}")
        if on_begin is not None:
            on_begin(folder, resolved(parts)["resolved"])
        return _run(parts, carry, folder, metrics_bytes, on_record, report)


def resolved(parts: PretrainParts) -> dict[str, Any]:
    """Content of ``config.json``: config, derived values, and versions of the libraries."""
    train, test = parts.images
    rules = rules_by_part({name: target.rule for name, target in parts.byol.targets.items()})
    libraries = ("jax", "jaxlib", "dm-haiku", "optax", "numpy", "scipy")
    return {
        "config": to_json(parts.config),
        "resolved": {
            "targets": {name: {"rule": str(rule)} for name, rule in rules.items()},
            "image": {"shape": list(train.images.shape[1:]), "dtype": str(train.images.dtype)},
            "training_images": len(train.images),
            "test_images": 0 if test is None else len(test.images),
        },
        "versions": {
            "polyak": __version__,
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in libraries},
        },
    }


def _first_carry(parts: PretrainParts) -> PretrainCarry:
    images, config = parts.images.train.images, parts.config
    batch = jax.ShapeDtypeStruct((config.batch_size, *images.shape[1:]), images.dtype)
    return initial_pretrain_carry(parts.byol, batch, config.seed)


def _run(
    parts: PretrainParts,
    carry: PretrainCarry,
    folder: pathlib.Path,
    metrics_bytes: int,
    on_record: OnRecord,
    report: Report,
) -> dict[str, Any] | None:
    config, images = parts.config, jax.numpy.asarray(parts.images.train.images)
    for text in health.of_targets(parts.byol.targets, config.steps):
        report(f"warning: {text}")

    def loop(carry: PretrainCarry, stop: Callable[[], bool]) -> Iterator[tuple[PretrainCarry, dict[str, Any]]]:
        return pretraining_loop(
            parts.byol,
            images,
            carry,
            batch_size=config.batch_size,
            steps=config.steps,
            record_every=config.log_every,
            probe_every=config.probe_every,
            yield_every=config.checkpoint_every,
            probe=lambda state: _probe(parts, lambda images: parts.encode(state, images)),
            stop=stop,
        )

    def save(carry: PretrainCarry, position: int) -> None:
        metadata = {"metrics_bytes": position}
        checkpoint.save(folder / CHECKPOINTS, carry.steps, carry._asdict(), {}, metadata)

    watch = health.PretrainWatch()
    try:
        carry, interrupted = drive(
            config, carry, folder, metrics_bytes, loop=loop, save=save, watch=watch, on_record=on_record, report=report
        )
        if interrupted:
            report(f"interrupted at step {carry.steps}, saved; continue with: {resume_command(folder)}")
            return None
        return _finish(parts, carry, folder, report)
    except OSError as error:
        add_way_on(error, folder)
        raise


def _probe(parts: PretrainParts, encode: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Probes of the features that ``encode`` computes from the images; empty without labels."""
    train, test = parts.images
    if test is None or train.labels is None or test.labels is None:
        return {}
    return probe(encode(train.images), train.labels, encode(test.images), test.labels)


def _finish(parts: PretrainParts, carry: PretrainCarry, folder: pathlib.Path, report: Report) -> dict[str, Any]:
    state = carry.learner
    save_variables(folder / "parameters.npz", {"params": state.params, "state": state.state})
    records = list(read_jsonl(folder / METRICS))
    last = records[-1]
    initial = parts.byol.init(initial_key(carry.key))
    result = {
        "encoder": {name: value for name, value in last.items() if name.startswith("probe/")},
        "initial_encoder": _probe(parts, lambda images: parts.encode(initial, images)),
        "pixels": _probe(parts, _pixels),
        "projection_spread": last["projection_spread"],
        "images": len(parts.images.train.images),
        "test_images": 0 if parts.images.test is None else len(parts.images.test.images),
    }
    title = title_of(parts.config)
    write_json(folder / "evaluation.json", result)  # a run with this file has ended
    shown: Images = parts.images.test or parts.images.train
    features = parts.encode(state, shown.images)
    draw_safely(lambda: probes_figure(records, result, folder / "learning_curve.png", title), report)
    draw_safely(lambda: embedding_figure(features, shown.labels, folder / "embedding.png", title), report)
    return result


def _pixels(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    return flat / 255 if images.dtype == np.uint8 else flat
