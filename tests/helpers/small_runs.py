"""Runs and loops of seconds: their options, their configs, their records."""

import signal

import numpy as np

from polyak.agents import make_agent
from polyak.experiments.loops.carry import initial_carry, make_replay
from polyak.experiments.loops.host import host_loop
from polyak.experiments.loops.observations import observation_pipeline
from polyak.experiments.runs.config import make_run_config
from polyak.experiments.runs.pretrain_config import make_pretrain_config
from polyak.experiments.runs.records import TIMES, read_jsonl

FIELDS = {
    "steps": 600,
    "log_every": 100,
    "checkpoint_every": 200,
    "evaluation_episodes": 2,
    "hidden_sizes": (8,),
    "batch_size": 8,
    "learning_starts": 50,
    "replay_capacity": 300,
}


def arguments(command, folder, **changed):
    """Command line of a small run."""
    flags = {f"--{name.replace('_', '-')}": value for name, value in (FIELDS | changed).items()}
    texts = [text for name, value in flags.items() for text in (name, *_texts(value))]
    return [*command, *texts, "--out", str(folder), "--quiet"]


def _texts(value):
    return map(str, value) if isinstance(value, tuple) else [str(value)]


def config_of(agent="n_step_double_dqn", preset="classic", **changed):
    """Config of a small run, by the names of its leaves."""
    return make_run_config(agent, preset, FIELDS | changed)


def records(folder):
    return [without_times(record) for record in read_jsonl(folder / "metrics.jsonl")]


def silent(_):
    """Report or record of which nothing is wanted."""


def interrupt_at(step):
    """An ``on_record`` that does what Ctrl-C does, at the record of ``step``."""
    return interrupt_when(lambda record: record["step"] == step)


def interrupt_when(due):
    """An ``on_record`` that does what Ctrl-C does, at each record for which ``due`` is true."""

    def on_record(record):
        if due(record):
            signal.raise_signal(signal.SIGINT)

    return on_record


def assert_same_run(folder, other):
    """Records, evaluation and parameters are equal, to the bit."""
    assert records(folder) == records(other)
    assert (folder / "evaluation.json").read_text() == (other / "evaluation.json").read_text()
    with np.load(folder / "parameters.npz") as ours, np.load(other / "parameters.npz") as theirs:
        assert ours.files == theirs.files
        for name in theirs.files:
            assert ours[name].tobytes() == theirs[name].tobytes()


def without_times(record):
    return {name: value for name, value in record.items() if name not in TIMES}


def begin(configs, environment, agent=None, *, seed=0, total_learner_steps=100, **options):
    """Agent, replay and carry at step 0."""
    agent = agent or make_agent(
        configs.agent,
        observation_pipeline(configs.loop, environment.spec).spec,
        total_learner_steps=total_learner_steps,
        **options,
    )
    replay = make_replay(agent, environment.spec, configs.loop, environment.num_envs)
    return agent, replay, initial_carry(agent, environment, replay, configs.loop, seed)


def run_loop(configs, environment, agent=None, *, steps, record_every=None, stop=lambda: False, **options):
    """Agent, last carry and records of a loop from its beginning."""
    agent, replay, carry = begin(configs, environment, agent, **options)
    records = []
    for last, record in host_loop(
        agent, environment, replay, configs.loop, carry, steps=steps, record_every=record_every or steps, stop=stop
    ):
        carry = last
        records.append(without_times(record))
    return agent, carry, records


PRETRAIN_FIELDS = {
    "steps": 12,
    "batch_size": 8,
    "log_every": 4,
    "probe_every": 6,
    "checkpoint_every": 5,
    "torso": "mlp",
    "hidden_sizes": (4,),
    "projector_hidden": 4,
    "projection_size": 4,
    "predictor_hidden": 4,
    "loggers": (),
}


def pretrain_config_of(data, **changed):
    """Config of a small pretraining run, by the names of its leaves."""
    fields = PRETRAIN_FIELDS | {"data": str(data)} | changed
    if fields.get("predictor") == "none":
        fields.pop("predictor_hidden")
    return make_pretrain_config("byol", fields)


def write_images(path, *, count=20, classes=2, side=8, channels=1):
    """A ``.npz`` of noisy images of a few patterns, which are their labels."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % classes
    patterns = generator.integers(0, 256, (classes, side, side, channels))
    noise = generator.normal(0, 30, (count, side, side, channels))
    np.savez(path, images=np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels=labels)
    return path
