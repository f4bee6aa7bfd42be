"""What cannot be, of one field or of two together, is one error that names field, value and a way out that works."""

import dataclasses
import itertools
import re

import haiku as hk
import jax
import numpy as np
import pytest

from polyak import networks
from polyak.agents import DQNConfig, dqn, seen_spec
from polyak.experiments import cli
from polyak.replay import EnvironmentSpec

NAN, INFINITY = float("nan"), float("inf")
LOWEST = {
    "num_atoms": 2,
    "num_quantiles": 1,
    "num_heads": 1,
    "lstm_size": 1,
    "n_steps": 1,
    "batch_size": 1,
    "frame_stack": 1,
    "sequence_length": 0,
    "burn_in": 0,
    "sequence_period": 1,
    "replay_capacity": 1,
    "learning_starts": 0,
    "train_every": 1,
    "learner_steps": 1,
}
FRACTIONS = [
    "discount",
    "epsilon_initial",
    "epsilon_final",
    "epsilon_fraction",
    "mask_probability",
    "priority_exponent",
    "importance_exponent_initial",
    "importance_exponent_final",
]
NOT_NEGATIVE = ["noisy_sigma", "prior_scale", "munchausen_weight", "munchausen_temperature"]
CHOICES = {
    "torso": "auto, mlp, nature, impala or minatar",
    "head": "q, categorical, hl_gauss, quantile, implicit_quantile or ensemble",
    "memory": "none or lstm",
    "loss": "huber or squared",
    "augmentation": "auto, none, shift or shift_and_intensity",
}
OTHERS = {"hidden_sizes", "activation", "v_min", "v_max", "munchausen_clip"}
OF_THE_OPTIMIZER_AND_THE_RULES = {
    "optimizer",
    "optimizer_epsilon",
    "learning_rate",
    "learning_rate_schedule",
    "max_gradient_norm",
    "target",
    "average",
}
ONE_STEP = {"double": False, "n_steps": 1}
MUNCHAUSEN = {"munchausen": True, **ONE_STEP}
LSTM = {"memory": "lstm", "sequence_length": 20}
PRESET = {**LSTM, "burn_in": 10, "sequence_period": 10}


def refused(message, kind=ValueError, **fields):
    with pytest.raises(kind) as caught:
        DQNConfig(**fields)
    assert re.search(message, str(caught.value)), str(caught.value)


def test_every_field_that_has_a_range_is_here():
    told = {*LOWEST, *FRACTIONS, *NOT_NEGATIVE, *CHOICES, *OTHERS, *OF_THE_OPTIMIZER_AND_THE_RULES}
    fields = {field.name for field in dataclasses.fields(DQNConfig) if not isinstance(field.default, bool)}
    assert told == fields


@pytest.mark.parametrize("field", dataclasses.fields(DQNConfig), ids=lambda field: field.name)
def test_a_value_of_another_type(field):
    if isinstance(field.default, bool):
        refused(rf"^{field.name}: got 'no' \(str\); expected True or False", TypeError, **{field.name: "no"})
        refused(rf"^{field.name}: got 1 \(int\)", TypeError, **{field.name: 1})
    elif isinstance(field.default, float):
        refused(rf"^{field.name}: got True \(bool\); expected a number", TypeError, **{field.name: True})
        refused(rf"^{field.name}: got '1' \(str\)", TypeError, **{field.name: "1"})
    elif isinstance(field.default, str):
        refused(rf"^{field.name}: got 3 \(int\); expected a text", TypeError, **{field.name: 3})
    elif field.name == "hidden_sizes":
        refused("^hidden_sizes: got 8; expected a size for each layer", TypeError, hidden_sizes=8)


@pytest.mark.parametrize("name", LOWEST)
def test_counts(name):
    lowest = LOWEST[name]
    small = {"n_steps": 1, "batch_size": 1, "replay_capacity": 1} | LSTM if name == "replay_capacity" else {}
    if name == "replay_capacity":
        small["sequence_length"] = 1
    assert getattr(DQNConfig(**{**small, name: lowest}), name) == lowest
    refused(rf"^{name}: got {lowest - 1}; expected an integer >= {lowest}\.", **{name: lowest - 1})
    refused(
        rf"^{name}: got {lowest}\.5 \(float\); expected an integer >= {lowest}\.", TypeError, **{name: lowest + 0.5}
    )
    refused(rf"^{name}: got True \(bool\); expected an integer", TypeError, **{name: True})


@pytest.mark.parametrize("name", FRACTIONS)
def test_fractions(name):
    for value in (1.0, 0.5, 0.0)[: 2 if name == "mask_probability" else 3]:
        assert getattr(DQNConfig(**{name: value}), name) == value
    for value in (-0.1, 1.1, NAN, INFINITY):
        refused(rf"^{name}: got {value}; expected 0 <= {name} <= 1\.", **{name: value})


@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_numbers_that_are_not_negative(name):
    for value in (0.0, 3.0):
        assert getattr(DQNConfig(**{name: value}), name) == value
    for value in (-0.1, NAN, INFINITY):
        refused(rf"^{name}: got {value}; expected a finite number >= 0\.", **{name: value})


@pytest.mark.parametrize(
    ("v_min", "v_max"),
    [(1.0, 1.0), (10.0, -10.0), (0.0, NAN), (NAN, 1.0), (0.0, INFINITY), (-INFINITY, 0.0)],
)
def test_a_support_that_is_none(v_min, v_max):
    told = rf"^v_min: got {v_min}, and v_max is {v_max}; expected finite numbers, v_min < v_max\. Give the lowest and"
    refused(told, v_min=v_min, v_max=v_max)


def test_numbers_of_single_parts():
    refused(r"^munchausen_temperature: got 0.0; expected a number > 0\.", munchausen_temperature=0.0, **MUNCHAUSEN)
    for value in (0.1, NAN):
        refused(rf"^munchausen_clip: got {value}; expected a number <= 0, such as -1\.", munchausen_clip=value)
    assert DQNConfig(munchausen_clip=0.0).munchausen_clip == 0
    told = r"^mask_probability: got 0.0, with which no head learns; expected a number in \(0, 1\]\."
    refused(told, mask_probability=0.0)
    refused(r"^hidden_sizes: got no layer; expected one or more\. Give \(64,\)", hidden_sizes=())


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name):
    refused(rf"^{name}: got 'neither'; expected {CHOICES[name]}\.", **{name: "neither"})


DISTRIBUTIONS = ["categorical", "hl_gauss", "quantile", "implicit_quantile"]
# Fields that do not go together, what is said of them, and the change that the message asks for.
PAIRS = [
    ({"dueling": True, "head": "ensemble"}, r"^dueling: got True, but.*Try --no-dueling", {"dueling": False}),
    ({"noisy": True, "head": "ensemble"}, r"^noisy: got True, but an ensemble.*Try --no-noisy", {"noisy": False}),
    (
        {"noisy": True, **LSTM},
        r"^noisy: got True, but the recurrent network has no noisy.*Try --no-noisy",
        {"noisy": False},
    ),
    *(
        ({**LSTM, "head": head}, rf"^head: got '{head}', but the recurrent agent.*Try --head q", {"head": "q"})
        for head in [*DISTRIBUTIONS, "ensemble"]
    ),
    *(
        ({**MUNCHAUSEN, "head": head}, r"^munchausen: got True, but it is a loss of values.*--head q", {"head": "q"})
        for head in [*DISTRIBUTIONS, "ensemble"]
    ),
    (
        {**MUNCHAUSEN, **LSTM},
        r"^munchausen: got True, but it learns from transitions, and the agent has a memory. Try --no-munchausen",
        {"munchausen": False},
    ),
    (
        {**MUNCHAUSEN, "value_rescaling": True},
        r"^munchausen: got True, but value_rescaling sets the bootstrap target too. Try --no-value-rescaling",
        {"value_rescaling": False},
    ),
    ({**MUNCHAUSEN, "double": True}, r"^munchausen: got True, but its bootstrap value.*--no-double", {"double": False}),
    (
        {**MUNCHAUSEN, "n_steps": 2},
        r"^munchausen: got True, but it is defined over single steps and n_steps is 2. Try --n-steps 1",
        {"n_steps": 1},
    ),
    *(
        (
            {"value_rescaling": True, "head": head},
            r"^value_rescaling: got True, but it is of values. Try --head q",
            {"head": "q"},
        )
        for head in [*DISTRIBUTIONS, "ensemble"]
    ),
    *(
        (
            {"loss": "huber", "head": head},
            rf"^loss: got 'huber', but the head {head} has a loss of its own. Try --loss squared",
            {"loss": "squared"},
        )
        for head in DISTRIBUTIONS
    ),
    (
        {"optimizer": "adamw", "head": "ensemble"},
        r"^optimizer: got 'adamw', but its decay would move the fixed prior. Try --optimizer adam\.",
        {"optimizer": "adam"},
    ),
    (
        {"memory": "lstm"},
        r"^memory: got 'lstm' and sequence_length 0.*Try --sequence-length 20, or --memory none",
        {"sequence_length": 20},
    ),
    (
        {**PRESET, "memory": "none"},
        "^sequence_length: got 20, and the agent has no memory; expected 0.*"
        "Try --sequence-length 0 --burn-in 0 --sequence-period 1, or --memory lstm",
        {"sequence_length": 0, "burn_in": 0, "sequence_period": 1},
    ),
    (
        {**LSTM, "sequence_period": 21},
        r"^sequence_period: got 21; expected at most sequence_length, 20 .*Try --sequence-period 20\.",
        {"sequence_period": 20},
    ),
    (
        {"sequence_period": 2},
        r"^sequence_period: got 2; expected at most sequence_length, 0 \(1 without .*Try --sequence-period 1\.",
        {"sequence_period": 1},
    ),
    (
        {**LSTM, "n_steps": 21},
        r"^n_steps: got 21; expected at most sequence_length, 20.*Try --sequence-length 21",
        {"sequence_length": 21},
    ),
    ({"burn_in": 5}, r"^burn_in: got 5 and sequence_length 0; it is a part.*Try --burn-in 0", {"burn_in": 0}),
    (
        {**LSTM, "burn_in": 31, "replay_capacity": 50, "batch_size": 1},
        r"^burn_in: got 31 beside sequence_length 20; expected together at most replay_capacity, 50\.",
        {"burn_in": 30},
    ),
    *(
        ({name: 129, "replay_capacity": 128}, rf"^{name}: got 129; expected at most replay_capacity, 128", {name: 128})
        for name in ("n_steps", "batch_size")
    ),
    (
        {**LSTM, "sequence_length": 129, "replay_capacity": 128},
        r"^sequence_length: got 129; expected at most replay_capacity, 128",
        {"sequence_length": 128},
    ),
]


@pytest.mark.parametrize(("fields", "message", "way_out"), PAIRS)
def test_parts_that_do_not_go_together(fields, message, way_out):
    refused(message, **fields)
    DQNConfig(**{**fields, **way_out})


PARTS = {
    **{head: {"head": head} for head in [*DISTRIBUTIONS, "ensemble"]},
    **{name: {name: True} for name in ("dueling", "noisy", "double", "value_rescaling", "munchausen")},
    "huber": {"loss": "huber"},
    "adamw": {"optimizer": "adamw"},
    "lstm": LSTM,
    "n_steps": {"n_steps": 3},
    "priorities": {"priority_exponent": 0.5},
    "stack": {"frame_stack": 4},
    "shift": {"augmentation": "shift"},
}
DO_NOT_GO_WITH = {
    "ensemble": ["dueling", "noisy", "value_rescaling", "munchausen", "adamw", "lstm"],
    "lstm": [*DISTRIBUTIONS, "noisy", "munchausen"],
    "munchausen": [*DISTRIBUTIONS, "double", "n_steps", "value_rescaling"],
    "value_rescaling": DISTRIBUTIONS,
    "huber": DISTRIBUTIONS,
}


@pytest.mark.parametrize(
    ("one", "other"),
    [pair for pair in itertools.combinations(PARTS, 2) if not {*PARTS[pair[0]]} & {*PARTS[pair[1]]}],
)
def test_every_other_pair_of_parts_goes_together(one, other):
    fields = {**ONE_STEP, **PARTS[one], **PARTS[other]}
    if other in DO_NOT_GO_WITH.get(one, []) or one in DO_NOT_GO_WITH.get(other, []):
        refused("got .*, but .*Try ", **fields)
    else:
        DQNConfig(**fields)


VECTORS, COLOURS = (4,), (84, 84, 3)


def spec(*shape):
    return EnvironmentSpec(jax.ShapeDtypeStruct(shape, np.dtype(np.uint8)), num_actions=2)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"frame_stack": 4}, VECTORS, r"^frame_stack: got 4 and observations of shape \(4,\).*Try --frame-stack 1"),
        ({"frame_stack": 2}, COLOURS, r"^frame_stack: got 2 and observations of shape \(84, 84, 3\).*one channel"),
        ({"frame_stack": 2, **LSTM}, VECTORS, r"^frame_stack: got 2 and observations of shape \(4,\)"),
        ({"augmentation": "shift"}, VECTORS, r"^augmentation: got 'shift' and observations of shape \(4,\).*none"),
        ({"augmentation": "shift_and_intensity", **LSTM}, VECTORS, r"^augmentation: got 'shift_and_intensity'.*none"),
        (
            {"torso": "nature"},
            VECTORS,
            r"^torso: got 'nature' and observations of shape \(4,\); expected images.*Try --torso auto",
        ),
        ({"torso": "minatar"}, (2, 2, 1), r"^observation: got images of 2x2; the minatar torso takes 3x3 at least"),
    ],
)
def test_what_does_not_suit_the_observations(fields, shape, message):
    config = DQNConfig(learning_rate_schedule="constant", **{**ONE_STEP, **fields})
    with pytest.raises(ValueError, match=message):
        dqn(config, spec(*shape))


@pytest.mark.parametrize("shape", [(84, 84), (84, 84, 1)])
def test_frames_of_one_channel_are_stacked_along_the_last_axis(shape):
    assert seen_spec(DQNConfig(frame_stack=4), spec(*shape)).observation.shape == (84, 84, 4)
    assert seen_spec(DQNConfig(), spec(*shape)) == spec(*shape)


def test_an_agent_that_remembers_has_a_network_of_its_own():
    network = hk.transform(lambda observation: networks.ValueOutput(hk.Linear(2)(observation)))
    with pytest.raises(ValueError, match=r"^network: got one for an agent that remembers; .* Try memory='none'\."):
        dqn(DQNConfig(learning_rate_schedule="constant", **ONE_STEP, **LSTM), spec(*VECTORS), network=network)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("c51 --v-min 100 --v-max 0", "v_min: got 100.0, and v_max is 0.0"),
        ("munchausen_dqn --double", "munchausen: got True, but its bootstrap value is soft"),
        ("rainbow --memory lstm", "noisy: got True, but the recurrent network has no noisy layers"),
        ("drq --augmentation shift", "augmentation: got 'shift' and observations of shape (4,)"),
        ("dqn --torso nature", "torso: got 'nature' and observations of shape (4,); expected images"),
        ("dqn --frame-stack 4", "frame_stack: got 4 and observations of shape (4,)"),
    ],
)
def test_from_the_command_line_it_is_one_message_before_a_folder_is_made(
    command, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    try:
        status = cli.run(["train", *command.split()])
    except SystemExit as stop:  # how tyro ends
        status = stop.code
    said = capsys.readouterr()
    assert status == 2
    assert message in " ".join((said.out + said.err).replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_what_jax_adds_to_an_error_of_a_trace_is_left_out(capsys, monkeypatch):
    network = networks.value_network(2, torso="nature", hidden_sizes=(4,))

    def build(arguments):
        return jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.uint8))

    with pytest.raises(ValueError, match=r"^observation: got images of 8x8") as caught:
        build([])
    assert caught.value.__notes__  # as JAX has it, where tracebacks are filtered
    monkeypatch.setitem(cli._COMMANDS, "train", build)
    assert cli.run(["train"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("polyak: observation: got images of 8x8; the nature torso takes 36x36 at least")
