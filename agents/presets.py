"""Table of agents, each a named difference from a base agent, and the configs of an agent under a preset.

The module imports nothing heavy. ``polyak agents`` prints the table, and ``polyak agents --diff dqn rainbow`` prints
the difference between two agents.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .config import AgentConfig
from .fields import Part, check_name
from .loop_config import LoopConfig
from .papers import (
    BBF,
    C51,
    DOUBLE,
    DQN,
    DUELING,
    KHETARPAL,
    N_STEP,
    NOISY,
    PRIORITIZED,
    RAINBOW,
    SPR,
    SR_SPR,
    ZP,
    Paper,
)
from .parts import leaves, replace
from .settings import PRESETS


class AgentEntry(NamedTuple):
    """Row of the table of agents.

    Attributes:
        begins_with: Name of the base agent; None for the first agent.
        difference: Mapping from name to value of the leaves that differ from the base agent.
        summary: Description on one line.
        papers: Papers of the agent.
        remarks: Differences from the papers besides the settings of a preset.
        own: Leaves of a run that a registered agent sets: ``network``, ``terms`` and ``maker``, as strings.
    """

    begins_with: str | None
    difference: Mapping[str, Any]
    summary: str
    papers: Sequence[Paper]
    remarks: str
    own: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Configs(Part):
    """Configs of an agent and of the loop around it.

    Attributes:
        agent: Config of the agent.
        loop: Config of the loop.
    """

    agent: AgentConfig = AgentConfig()
    loop: LoopConfig = LoopConfig()


DEFAULT_AGENT, DEFAULT_PRESET = "n_step_double_dqn", "classic"

AGENTS: dict[str, AgentEntry] = {
    "dqn": AgentEntry(
        None,
        {},
        "Q-learning with a network, a replay and a target network",
        (DQN,),
        "none",
    ),
    "double_dqn": AgentEntry(
        "dqn",
        {"double": True},
        "double Q-learning: online network chooses the action",
        (DOUBLE,),
        "none",
    ),
    "n_step_double_dqn": AgentEntry(
        "double_dqn",
        {"n_steps": 10},
        "double Q-learning with 10-step returns: the default agent",
        (DOUBLE, N_STEP._replace(part="n steps")),
        "no off-policy correction of the returns, as in Rainbow",
    ),
    "dueling_dqn": AgentEntry(
        "double_dqn",
        {"dueling": True},
        "value and advantage streams, on double DQN",
        (DUELING,),
        "the gradient below the streams is not rescaled",
    ),
    "n_step_dqn": AgentEntry(
        "dqn",
        {"n_steps": 5},
        "DQN with n-step returns",
        (N_STEP, RAINBOW._replace(part="in a DQN")),
        "5 steps, without off-policy correction, as in Rainbow",
    ),
    "prioritized_dqn": AgentEntry(
        "double_dqn",
        {"sampling": "prioritized", "priority_exponent": 0.6, "importance_exponent": "linear(0.4,1,100%)"},
        "double Q-learning with prioritized sampling by TD error",
        (PRIORITIZED, DOUBLE._replace(part="double")),
        "importance weights are divided by the largest weight of the batch",
    ),
    "c51": AgentEntry(
        "dqn",
        {"head": "categorical", "num_atoms": 51},
        "distributional: probabilities of 51 fixed returns",
        (C51,),
        "without --v-min and --v-max, the support is derived from the rewards of the first steps",
    ),
    "qr_dqn": AgentEntry(
        "dqn",
        {"head": "quantile", "num_quantiles": 50},
        "distributional: return quantiles at fixed fractions",
        (Paper("Dabney et al., 2018a", "https://arxiv.org/abs/1710.10044"),),
        "50 quantiles (200)",
    ),
    "iqn": AgentEntry(
        "dqn",
        {"head": "implicit_quantile", "num_quantiles": 8},
        "distributional: return quantiles at sampled fractions",
        (Paper("Dabney et al., 2018b", "https://arxiv.org/abs/1806.06923"),),
        "8 fractions everywhere (64); acts on evenly spaced fractions, not on sampled ones",
    ),
    "noisy_dqn": AgentEntry(
        "dqn",
        {"noisy_sigma": 0.5, "epsilon": 0},
        "exploration by learnt noise in the last layers",
        (NOISY,),
        "noise only in the last hidden layer and the head; evaluated without noise",
    ),
    "rainbow": AgentEntry(
        "c51",
        {
            "double": True,
            "dueling": True,
            "n_steps": 3,
            "sampling": "prioritized",
            "priority_exponent": 0.5,
            "importance_exponent": "linear(0.4,1,100%)",
            "noisy_sigma": 0.5,
            "epsilon": 0,
        },
        "C51 with double, dueling, n-step, prioritized, noisy",
        (RAINBOW,),
        "the priority is the cross-entropy (the KL divergence); evaluated without noise",
    ),
    "munchausen_dqn": AgentEntry(
        "dqn",
        {"bootstrap": "munchausen"},
        "log-policy added to the reward, soft bootstrap value",
        (Paper("Vieillard et al., 2020", "https://arxiv.org/abs/2007.14430"),),
        "none",
    ),
    "hl_gauss": AgentEntry(
        "dqn",
        {"head": "hl_gauss", "num_atoms": 51},
        "values as histograms, trained by classification",
        (Paper("Farebrother et al., 2024", "https://arxiv.org/abs/2403.03950"),),
        "without --v-min and --v-max, the support is derived from the rewards of the first steps; the preset atari has "
        "the Adam settings of c51, not checked against the paper",
    ),
    "bootstrapped_dqn": AgentEntry(
        "double_dqn",
        {"head": "ensemble", "num_members": 10, "epsilon": 0},
        "ensemble with fixed priors; one member acts per episode",
        (
            Paper("Osband et al., 2016", "https://arxiv.org/abs/1602.04621"),
            Paper("Osband et al., 2018", "https://arxiv.org/abs/1806.03335", "priors, --prior-scale"),
        ),
        "the members share one torso and the priors another; evaluated by the members' mean (a vote)",
    ),
    "isdqn": AgentEntry(
        "dqn",
        {"head": "iterated", "num_iterations": 3, "target": "none"},
        "a chain of heads without a second network",
        (Paper("Vincent et al., 2026", "https://arxiv.org/abs/2506.04398"),),
        "3 heads that learn, as in the paper's network without layer normalization (9 with it); the loss is half the "
        "squared error; evaluated by the mean of the heads",
    ),
    "r2d2": AgentEntry(
        "dueling_dqn",
        {
            "core": "lstm",
            "windows": "sequences",
            "sampling": "prioritized",
            "priority_exponent": 0.9,
            "importance_exponent": 0.6,
            "value_rescaling": True,
            "n_steps": 5,
        },
        "LSTM, trained on sequences with stored recurrent state",
        (
            Paper("Kapturowski et al., 2019", "https://openreview.net/forum?id=r1lyTjAqYX"),
            Paper("Pohlen et al., 2018", "https://arxiv.org/abs/1805.11593", "value rescaling"),
        ),
        "one actor with one epsilon; no burn-in at the start of an episode",
    ),
    "drq": AgentEntry(
        "n_step_double_dqn",
        {"dueling": True, "augmentation": "auto"},
        "random shifts of sampled images (none for vectors)",
        (Paper("Yarats et al., 2021", "https://arxiv.org/abs/2004.13649"),),
        "only shifts (and intensity); one augmentation for the value and one for the target (K = M = 1)",
    ),
    "zp": AgentEntry(
        "n_step_double_dqn",
        {"self_prediction": "mlp"},
        "self-prediction of a target network's next features (ZP)",
        (ZP,),
        "on n-step double DQN, feed-forward unless --core lstm; the paper uses TD3 for vector observations",
    ),
    "byol_pi": AgentEntry(
        "zp",
        {"self_prediction": "linear", "action_conditional": False, "predictor_rate": 10.0},
        "ZP with one linear transition for all actions (BYOL-Pi)",
        (KHETARPAL,),
        "the ratio of the learning rates and the underlying agent are polyak's choice",
    ),
    "byol_ac": AgentEntry(
        "byol_pi",
        {"action_conditional": True},
        "ZP with one linear transition per action (BYOL-AC)",
        (KHETARPAL,),
        "as byol_pi",
    ),
    "spr": AgentEntry(
        "rainbow",
        {
            "n_steps": 10,
            "self_prediction": "mlp",
            "horizon": 5,
            "prediction_weight": 5.0,
            "prediction_error": "cosine",
            "projection": "streams",
            "normalize_features": True,
            "augmentation": "auto",
        },
        "Rainbow with self-prediction over 5 steps",
        (SPR,),
        "no batch normalization in the transition model, no dropout, one gradient norm for all parameters; projections "
        "without noise",
    ),
    "sr_spr": AgentEntry(
        "spr",
        {
            "noisy_sigma": None,
            "projection": "shared",
            "importance_exponent": 0.5,
            "act_with": "target",
            "resets": "periodic",
            "reset_parts": "head predictor",
            "shrink_parts": "torso transition",
            "shrink": 0.8,
        },
        "SPR with resets; the target network acts",
        (SR_SPR,),
        "a reset keeps the optimizer's step count; priorities as in rainbow",
    ),
    "bbf": AgentEntry(
        "sr_spr",
        {
            "shrink": 0.5,
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "n_steps": "exponential(10,3,10000)@resets",
            "discount": "horizon(0.97,0.997,10000)@resets",
        },
        "SR-SPR with n and discount that restart at resets",
        (BBF,),
        "as sr_spr; only the preset atari has the wide torso",
    ),
}


def register_agent(
    name: str,
    begins_with: str = "dqn",
    fields: Mapping[str, Any] = {},
    *,
    summary: str = "",
    network: str = "none",
    terms: Sequence[str] = (),
    maker: str = "none",
) -> None:
    """Add a custom agent to the table, for ``polyak train NAME`` and ``polyak.train(NAME)``.

    Args:
        name: Name of the agent.
        begins_with: Name of the base agent.
        fields: Mapping from name to value of the leaves that differ from the base agent.
        summary: Description on one line.
        network: Import path of a network, see :class:`polyak.experiments.runs.config.RunConfig`.
        terms: Terms of the loss, as strings ``NAME=WEIGHT*module:term``.
        maker: Import path of a function that makes the agent.

    Raises:
        ValueError: if another agent has the name, or if ``begins_with`` or a field does not exist.
        TypeError: if a value has another type than its field.

    >>> register_agent("quick_dqn", "dqn", {"learning_rate": 0.01}, summary="DQN in a hurry")
    >>> make_configs("quick_dqn").agent.learning_rate.initial
    0.01
    >>> _ = AGENTS.pop("quick_dqn")
    """
    check_name(begins_with, AGENTS, "begins_with")
    found = {"network": network, "terms": tuple(terms), "maker": maker}
    own = {leaf: value for leaf, value in found.items() if value not in ("none", ())}
    entry = AgentEntry(begins_with, dict(fields), summary or f"as {begins_with}", (), "none", own)
    if AGENTS.get(name, entry) != entry or not name.isidentifier():
        raise ValueError(f"name: got {name!r}; expected a name of letters, digits and _ that no other agent has.")
    replace(make_configs(begins_with), fields)  # raises if a field is wrong
    AGENTS[name] = entry


def own_leaves(name: str) -> dict[str, Any]:
    """Return the leaves of a run that a registered agent sets, including those of its base agents.

    >>> own_leaves("rainbow")
    {}
    """
    return {leaf: value for agent in lineage(name) for leaf, value in AGENTS[agent].own.items()}


def lineage(name: str) -> list[str]:
    """Return the names of an agent's base agents, first to last, and its own.

    Raises:
        ValueError: if no agent has that name.

    >>> lineage("rainbow")
    ['dqn', 'c51', 'rainbow']
    """
    begins_with = AGENTS[check_name(name, AGENTS, "agent")].begins_with
    return [*(lineage(begins_with) if begins_with else []), name]


def make_configs(name: str = DEFAULT_AGENT, preset: str = DEFAULT_PRESET, fields: Mapping[str, Any] = {}) -> Configs:
    """Make the configs of an agent from its difference, then the settings of a preset, then the given fields.

    Args:
        name: Name of the agent.
        preset: Name of the preset.
        fields: Mapping from name to value; the value of a union is a kind or a part.

    Raises:
        ValueError: if a name is unknown, or a value is out of range.
        TypeError: if a value has another type than its field.

    >>> configs = make_configs("rainbow", fields={"num_atoms": 21})
    >>> configs.agent.head.num_atoms, configs.loop.draw.most_steps
    (21, 3)
    """
    settings, configs = PRESETS[check_name(preset, PRESETS, "preset")], Configs()
    for agent in lineage(name):
        configs = replace(replace(configs, AGENTS[agent].difference), settings.get(agent, {}))
    return replace(configs, fields)


def differences(name: str, other: str, preset: str = DEFAULT_PRESET) -> list[tuple[str, Any, Any]]:
    """List the leaves in which two agents differ: name, first value, second value; "-" stands for no such leaf.

    >>> differences("dqn", "munchausen_dqn")[:2]
    [('bootstrap', 'greedy', 'munchausen'), ('double', False, '-')]
    """
    first, second = (leaves(make_configs(agent, preset)) for agent in (name, other))
    pairs = {leaf: (first.get(leaf, "-"), second.get(leaf, "-")) for leaf in {**first, **second}}
    return [(leaf, *values) for leaf, values in pairs.items() if values[0] != values[1]]
