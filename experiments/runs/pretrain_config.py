"""Config of a pretraining run: a frozen dataclass of parts, made from flat fields, and converted to and from JSON.

This module imports nothing heavy.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from ...agents import parts
from ...agents.fields import Part, at_least, check_name
from ...agents.pretraining import BYOLConfig
from .config import FORMAT, LoggerName, check_loggers, check_seed

METHODS = ("byol",)
_BEGINS_WITH = ("byol", "method")


@dataclasses.dataclass(frozen=True)
class PretrainConfig(Part):
    """Config of a pretraining run. The config, the images and the versions of the libraries determine the run.

    Attributes:
        byol: Config of BYOL.
        method: Method of pretraining.
        data: Source of the images: mnist5k (requires the extra images), a .npz file with an array images, or a folder
            of images.
        steps: Number of gradient steps.
        batch_size: Number of images of a gradient step; each image gives two views.
        seed: Seed of all random numbers.
        log_every: Number of gradient steps between two lines of metrics.
        probe_every: Number of gradient steps between two probes of the features, for images with labels.
        checkpoint_every: Number of gradient steps between two checkpoints.
        loggers: Writers of the metrics in addition to metrics.jsonl: csv (metrics.csv, episodes.csv), tensorboard
            (tensorboard/), wandb (Weights & Biases, offline unless WANDB_MODE is set), trackio (a local database); may
            be empty.
    """

    byol: BYOLConfig = BYOLConfig()
    method: Literal["byol"] = "byol"
    data: str = "mnist5k"
    steps: int = at_least(1, 1_000)
    batch_size: int = at_least(2, 128)
    seed: int = at_least(0, 0)
    log_every: int = at_least(1, 20)
    probe_every: int = at_least(1, 200)
    checkpoint_every: int = at_least(1, 200)
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_seed(self.seed)
        check_loggers(self.loggers)


# Names of the leaves of a run that do not belong to its method.
PRETRAIN_LEAVES = tuple(field.name for field in dataclasses.fields(PretrainConfig) if field.name not in _BEGINS_WITH)


def make_pretrain_config(method: str = "byol", fields: Mapping[str, Any] = {}) -> PretrainConfig:
    """Make the config of a pretraining run.

    Args:
        method: Name of the method.
        fields: Leaves by name; a union is given by the name of a kind or by a part.

    Raises:
        ValueError: if a name is unknown or belongs to an absent part, or if a value is out of range.
        TypeError: if a value does not have the type of its field.

    >>> config = make_pretrain_config("byol", {"optimizer": "lars", "momentum": 0.8, "steps": 100})
    >>> config.byol.optimizer.momentum, config.steps
    (0.8, 100)
    """
    check_name(method, METHODS, "method")
    return parts.replace(PretrainConfig(), fields)


def to_json(config: PretrainConfig) -> dict[str, Any]:
    """Convert a config to JSON types, with its format.

    >>> written = to_json(PretrainConfig())
    >>> written["format"], written["method"], written["byol"]["optimizer"]["kind"]
    (2, 'byol', 'adamw')
    """
    return {"format": FORMAT, **parts.to_json(config)}


def from_json(fields: Mapping[str, Any]) -> PretrainConfig:
    """Read a config from JSON, the inverse of :func:`to_json`.

    Raises:
        ValueError: if the format or a field is unknown, or a value is out of range.
        TypeError: if a value does not have the type of its field.

    >>> from_json(to_json(PretrainConfig(seed=3))) == PretrainConfig(seed=3)
    True
    """
    if fields.get("format") != FORMAT:
        raise ValueError(f"format: got {fields.get('format')!r}; expected {FORMAT}.")
    return parts.from_json(PretrainConfig(), {name: value for name, value in fields.items() if name != "format"})
