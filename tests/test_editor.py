"""Editors and Jupyter: the public names, the keywords of polyak.train, and runs that plot, print and pickle."""

import dataclasses
import inspect
import pathlib
import pickle
import runpy

import gymnasium
import jedi
import numpy as np
import pytest

import polyak
from polyak.agents.parts import bringers, leaves
from polyak.experiments.runs.config import RunConfig
from polyak.experiments.runs.export import Exported
from polyak.experiments.runs.keywords import PretrainFields, TrainFields
from polyak.experiments.runs.pretrain_config import PretrainConfig
from small_runs import FIELDS, PRETRAIN_FIELDS, write_images

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return polyak.train(out=tmp_path_factory.mktemp("editor") / "run", evaluate_every=300, **FIELDS)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editor")
    data = write_images(folder / "patterns.npz")
    made = polyak.pretrain("byol", data=data, out=folder / "run", **PRETRAIN_FIELDS)
    data.unlink()  # nothing below needs the images
    return made


def test_dir_lists_the_public_names():
    assert dir(polyak) == sorted(polyak.__all__)


def test_the_keywords_are_those_that_the_program_has():
    written = (ROOT / "experiments" / "runs" / "keywords.py").read_text()
    assert runpy.run_path(str(ROOT / "docs" / "options.py"))["keywords"]() == written, "python docs/options.py"
    begins_with = {"agent", "agent_name", "preset", "byol", "method"}
    for fields, config in ((TrainFields, RunConfig), (PretrainFields, PretrainConfig)):
        assert fields.__annotations__.keys() == {*leaves(config()), *bringers(config)} - begins_with


@pytest.mark.parametrize(
    ("code", "completed"),
    [
        ("polyak.train(learning_", ["learning_rate=", "learning_starts="]),
        ("polyak.train('c51', num_a", ["num_atoms="]),
        ("polyak.pretrain(proj", ["projection_size=", "projector_hidden="]),
    ],
)
def test_jupyter_completes_the_keywords(code, completed):
    found = jedi.Interpreter(code, [{"polyak": polyak}]).complete()
    assert [completion.name for completion in found] == completed


def test_the_signature_has_every_keyword_after_the_arguments():
    assert list(inspect.signature(polyak.train).parameters)[:7] == [
        *("agent", "preset", "config", "out", "quiet", "callbacks"),
        next(iter(TrainFields.__annotations__)),
    ]


def test_a_run_plots_its_episodes_and_evaluations(run):
    [axes] = run.plot().axes
    episodes, mean, greedy = axes.get_lines()
    np.testing.assert_array_equal(episodes.get_xydata(), np.stack([run.metrics[n] for n in ("ended_at", "returns")], 1))
    assert mean.get_ydata()[-1] == pytest.approx(run.metrics["returns"][-20:].mean())
    assert greedy.get_xdata().tolist() == [300, 600]
    assert axes.get_title() == "n_step_double_dqn on CartPole-v1, target periodic:50"


def test_an_encoder_plots_its_probes(pretrained):
    [axes] = pretrained.plot().axes
    steps, knn = axes.get_lines()[4].get_data()
    assert steps.tolist() == [0, 6, 12]
    measured = pretrained.metrics["probe/knn"]
    np.testing.assert_array_equal(
        knn, [pretrained.evaluation["initial_encoder"]["probe/knn"], *measured[np.isfinite(measured)]]
    )


def test_reprs_have_one_line_and_no_arrays(run, pretrained):
    evaluation = f"{run.evaluation['mean']:.1f} ± {run.evaluation['standard_error']:.1f}, 2 episodes"
    assert repr(run) == (
        "Run(agent='n_step_double_dqn', environment='CartPole-v1', target='periodic:50', steps='600', "
        f"evaluation='{evaluation}', folder='{run.folder}')"
    )
    assert repr(polyak.load(run.folder, checkpoint=400)).count("parameters='400.npz'") == 1
    shown = repr(pretrained)
    assert shown.startswith("Pretrained(method='byol', data='")
    assert f"linear {pretrained.evaluation['encoder']['probe/linear']:.3f}" in shown
    exported = Exported({"network": {"function": "polyak.networks.value_network"}}, {"params/w": np.ones(3)})
    assert repr(exported) == "Exported(network='polyak.networks.value_network', arrays=1)"
    assert not any("\n" in text or "array(" in text for text in (repr(run), shown))


def test_jupyter_shows_a_table_without_scripts_and_a_picture(run, pretrained):
    named = dataclasses.replace(run, config=dataclasses.replace(run.config, name="<script>alert(1)</script>"))
    shown = named._repr_html_()
    assert "<tr><th>agent</th><td>&lt;script&gt;alert(1)&lt;/script&gt;</td></tr>" in shown
    assert "<script" not in shown
    assert "<tr><th>steps</th><td>600</td></tr>" in shown
    assert "<th>method</th><td>byol</td>" in pretrained._repr_html_()
    assert run.plot()._repr_png_()[:4] == b"\x89PNG"


def test_a_pickled_run_acts_as_before(run, pretrained):
    observations = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    run.act(observations[0])  # a program that is compiled is not pickled
    again = pickle.loads(pickle.dumps(run))
    np.testing.assert_array_equal(again.q_values(observations), run.q_values(observations))
    np.testing.assert_array_equal(again.act(observations), run.act(observations))
    assert (repr(again), again.config, again.spec) == (repr(run), run.config, run.spec)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    features = pretrained.encode(images)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pretrained)).encode(images), features)
    np.testing.assert_array_equal(polyak.load_pretrained(pretrained.folder).encode(images), features)


def test_an_object_that_cannot_be_pickled_is_named(run):
    given = {"<Fine>": gymnasium.make, "<lambda>": lambda: None}
    with pytest.raises(
        TypeError, match=r"given: the run was begun with <lambda>, which cannot be pickled \(.*\)\. .*polyak.load\("
    ):
        pickle.dumps(dataclasses.replace(run, given=given))
