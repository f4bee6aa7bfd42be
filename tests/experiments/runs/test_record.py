"""Videos of a run that plays."""

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from polyak.experiments import cli
from polyak.experiments.runs import record as recording
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.record import record
from small_runs import config_of, silent


class Painted(gym.Env):
    """An episode of 5 steps whose picture is as bright as the time."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space, action_space = gym.spaces.Box(0, 9, (1,), np.float32), gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t >= 5, False, {}

    def render(self):
        return np.full((6, 7, 3), 40 * self.t, np.uint8) if self.render_mode else None


class Unequipped(Painted):
    """An environment whose pictures need a package that is not installed."""

    def render(self):
        raise gym.error.DependencyNotInstalled('pygame is not installed, run `pip install "gymnasium[toy-text]"`')


class Dark(Painted):
    """An environment that renders nothing."""

    def render(self):
        return None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painted") / "run"
    runs.train(config_of(env="<Painted>"), folder, silent, silent, given={"<Painted>": Painted})
    return folder


def test_a_gif_has_the_frames_of_the_episodes(run, tmp_path):
    path = record(run, tmp_path / "two.gif", episodes=2, given={"<Painted>": Painted})
    with Image.open(path) as picture:
        assert picture.size == (7, 6)
        assert picture.n_frames == 10
        assert picture.info["duration"] == 100


def test_without_ffmpeg_a_gif_is_made_and_a_video_refused(run, monkeypatch, tmp_path):
    monkeypatch.setattr(recording.shutil, "which", lambda name: None)
    assert record(run, given={"<Painted>": Painted}).name == "episode.gif"
    with pytest.raises(ValueError, match=r"out: got .*x.mp4, and ffmpeg is not installed. Give a file that ends in"):
        record(run, tmp_path / "x.mp4", given={"<Painted>": Painted})


@pytest.mark.parametrize(
    ("out", "message"),
    [("x.avi", "expected a file that ends in .mp4 or .gif"), ("nowhere/x.gif", "cannot be written")],
)
def test_bad_files(run, tmp_path, out, message):
    with pytest.raises(ValueError, match=message):
        record(run, tmp_path / out, given={"<Painted>": Painted})


def test_an_environment_that_renders_nothing_is_explained(run):
    with pytest.raises(ValueError, match=r"rendered NoneType; expected an array \[H, W, 3\] of uint8"):
        record(run, given={"<Painted>": Dark})
    with pytest.raises(ValueError, match=r"The environment must support render_mode='rgb_array'"):
        record(run, given={"<Painted>": lambda: Painted()})


def test_a_package_that_is_missing_for_rendering_is_named(run):
    with pytest.raises(ValueError, match=r"cannot be rendered: pygame is not installed.*gymnasium\[toy-text\]"):
        record(run, given={"<Painted>": Unequipped})


def test_from_the_command_line(tmp_path, capsys):
    assert cli.run(["record", str(tmp_path)]) == 2
    assert "no run found" in capsys.readouterr().err
