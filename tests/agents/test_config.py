"""Configs of agents and loops: fields and parts that exclude each other, and pairs that go together."""

import itertools
import re

import pytest

from polyak.agents import Configs
from polyak.agents.parts import replace

DISTRIBUTIONS = ["categorical", "hl_gauss", "quantile", "implicit_quantile"]
SEQUENCES = {"windows": "sequences", "sequence_length": 20, "sequence_period": 10}
# Fields that do not go together, the message, and the change that the message asks for.
PAIRS = [
    (
        {"optimizer": "adamw", "head": "ensemble"},
        "^optimizer: got AdamW, but its decay would move the fixed prior.*Try --optimizer adam, or --prior-scale 0",
        {"optimizer": "adam"},
    ),
    (
        {"optimizer": "adamw", "head": "ensemble"},
        "^optimizer: got AdamW, but its decay would move the fixed prior.*Try --optimizer adam, or --prior-scale 0",
        {"prior_scale": 0},
    ),
    (
        {"optimizer": "adamw", "head": "iterated"},
        "^optimizer: got AdamW, but its decay would move head 0 of the iterated head.*Try --optimizer adam, or another",
        {"optimizer": "adam"},
    ),
    (
        {"target_role": "trust_region", "head": "iterated"},
        "^target_role: got TrustRegion, but each head of the .*Try --target-role bootstrap, or --head scalar",
        {"target_role": "bootstrap"},
    ),
    (
        {"target_role": "functional", "head": "iterated"},
        "^target_role: got FunctionalRegularization, but .*Try --target-role bootstrap, or --head scalar",
        {"head": "scalar"},
    ),
    (
        {"bootstrap": "munchausen", "value_rescaling": True},
        "^value_rescaling: got True, but the Munchausen bootstrap.*Try --no-value-rescaling, or --bootstrap greedy",
        {"value_rescaling": False},
    ),
    (
        {"bootstrap": "munchausen", "value_rescaling": True},
        "^value_rescaling: got True, but the Munchausen bootstrap.*Try --no-value-rescaling, or --bootstrap greedy",
        {"bootstrap": "greedy"},
    ),
    (
        {**SEQUENCES, "sequence_period": 21},
        "^sequence_period: got 21; expected at most sequence_length, 20,.*Try --sequence-period 20.$",
        {"sequence_period": 20},
    ),
    (
        {**SEQUENCES, "n_steps": 21},
        "^n_steps: got 21; expected at most sequence_length, 20, within.*Try --sequence-length 21",
        {"sequence_length": 21},
    ),
    (
        {**SEQUENCES, "n_steps": "linear(1,21,50%)"},
        r"^n_steps: got linear\(1,21,50%\); expected at most sequence_length, 20",
        {"n_steps": "linear(1,20,50%)"},
    ),
    *(
        (
            {name: 129, "replay_capacity": 128, **SEQUENCES, "sequence_length": 128},
            f"^{name}: got 129; expected at most replay_capacity, 128. Try --replay-capacity 129",
            way_out,
        )
        for name in ("n_steps", "batch_size")
        for way_out in ({name: 128}, {"replay_capacity": 129, "sequence_length": 129})
    ),
    (
        {"normalize_observations": True, "frame_stack": 4},
        "^normalize_observations: got True, but stacked frames are images.*Try --no-normalize-observations",
        {"normalize_observations": False},
    ),
    *(
        (
            {"head": head, "v_min": low, "v_max": high},
            rf"^v_min: got {low}, and v_max is {high}; expected",
            {"v_max": 1000.0},
        )
        for head in ("categorical", "hl_gauss")
        for low, high in ((1.0, 1.0), (10.0, -10.0), (0.0, None))
    ),
    (
        {"sampling": "prioritized", "priority_exponent": 0},
        "^priority_exponent: got 0.0, which is uniform sampling. Try --sampling uniform",
        {"priority_exponent": 0.1},
    ),
    (
        {"learning_rate": 0},
        "^learning_rate: got 0, with which nothing is learnt; expected a number > 0",
        {"learning_rate": "linear(0,0.1,5%)"},
    ),
    (
        {"hidden_sizes": ()},
        r"^hidden_sizes: got no layer; expected one or more. Try --hidden-sizes 64, which is \(64,\) in Python",
        {"hidden_sizes": (64,)},
    ),
    ({"hidden_sizes": (3, 0)}, "^hidden_sizes: got 0; expected an integer >= 1", {"hidden_sizes": (3, 1)}),
]


@pytest.mark.parametrize(("fields", "message", "way_out"), PAIRS)
def test_fields_that_do_not_go_together(fields, message, way_out):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (matched below)
        replace(Configs(), fields)
    assert re.search(message, str(caught.value)), str(caught.value)
    replace(Configs(), {**fields, **way_out})


PARTS = {
    **{head: {"head": head} for head in [*DISTRIBUTIONS, "ensemble", "iterated"]},
    **{name: {name: True} for name in ("dueling", "double", "value_rescaling")},
    "noisy": {"noisy_sigma": 0.5},
    "munchausen": {"bootstrap": "munchausen"},
    "error": {"error": "squared"},
    "adamw": {"optimizer": "adamw"},
    "role": {"target_role": "functional"},
    "lstm": {"core": "lstm"},
    "sequences": SEQUENCES,
    "n_steps": {"n_steps": 3},
    "annealed": {"discount": "linear(0.9,0.99,50%)", "n_steps": "exponential(10,3,10000)"},
    "priorities": {"sampling": "prioritized"},
    "stack": {"frame_stack": 4},
    "shift": {"augmentation": "shift"},
}
# Leaves that the other part does not have, and two that exclude each other.
DO_NOT_GO_WITH = {
    "ensemble": ["dueling", "noisy", "value_rescaling", "adamw"],
    "iterated": ["dueling", "noisy", "value_rescaling", "adamw", "role"],
    "munchausen": ["double", "value_rescaling"],
    "value_rescaling": DISTRIBUTIONS,
    "error": DISTRIBUTIONS,
}


@pytest.mark.parametrize(
    ("one", "other"),
    [pair for pair in itertools.combinations(PARTS, 2) if not {*PARTS[pair[0]]} & {*PARTS[pair[1]]}],
)
def test_every_other_pair_of_parts_goes_together(one, other):
    fields = {**PARTS[one], **PARTS[other]}
    if other in DO_NOT_GO_WITH.get(one, []) or one in DO_NOT_GO_WITH.get(other, []):
        with pytest.raises(ValueError, match=r"got .*, but .*Try "):
            replace(Configs(), fields)
    else:
        replace(Configs(), fields)
