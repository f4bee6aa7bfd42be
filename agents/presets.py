"""Table of agents, each a named difference from the agent it begins with, and the config of an agent under a preset.

The module imports nothing heavy. ``polyak agents`` prints the table, and ``polyak agents --diff dqn rainbow`` the
difference of two.
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
        begins_with: Name of the agent that it differs from; None for the first.
        difference: Leaves that differ, by name.
        summary: Description on one line.
        papers: Papers.
        remarks: Differences from the papers besides the settings of a preset.
        own: Leaves of a run that an agent of a person's own brings: ``network``, ``terms`` and ``maker``, as texts.
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
        "double Q-learning: the online network chooses the next action",
        (DOUBLE,),
        "none",
    ),
    "n_step_double_dqn": AgentEntry(
        "double_dqn",
        {"n_steps": 10},
        "double Q-learning over 10 steps: the quickstart",
        (DOUBLE, N_STEP._replace(part="n steps")),
        "returns are uncorrected for the policy, as in Rainbow",
    ),
    "dueling_dqn": AgentEntry(
        "double_dqn",
        {"dueling": True},
        "a stream for the value and one for the advantages",
        (DUELING,),
        "gradients below the streams are not rescaled",
    ),
    "n_step_dqn": AgentEntry(
        "dqn",
        {"n_steps": 5},
        "returns of several steps before the bootstrap value",
        (N_STEP, RAINBOW._replace(part="in a DQN")),
        "5 steps, uncorrected for the policy, as in Rainbow",
    ),
    "prioritized_dqn": AgentEntry(
        "double_dqn",
        {"sampling": "prioritized", "priority_exponent": 0.6, "importance_exponent": "linear(0.4,1,100%)"},
        "double Q-learning from steps drawn by their error",
        (PRIORITIZED, DOUBLE._replace(part="double")),
        "importance weights are divided by the largest of the batch",
    ),
    "c51": AgentEntry(
        "dqn",
        {"head": "categorical", "num_atoms": 51},
        "probabilities of 51 returns",
        (C51,),
        "the support is derived from the rewards of the first steps where --v-min and --v-max do not give it",
    ),
    "qr_dqn": AgentEntry(
        "dqn",
        {"head": "quantile", "num_quantiles": 50},
        "quantiles of the return at fixed fractions",
        (Paper("Dabney et al., 2018a", "https://arxiv.org/abs/1710.10044"),),
        "50 quantiles (200)",
    ),
    "iqn": AgentEntry(
        "dqn",
        {"head": "implicit_quantile", "num_quantiles": 8},
        "quantiles of the return at drawn fractions",
        (Paper("Dabney et al., 2018b", "https://arxiv.org/abs/1806.06923"),),
        "8 fractions everywhere (64); acts on evenly spaced ones, not on drawn ones",
    ),
    "noisy_dqn": AgentEntry(
        "dqn",
        {"noisy_sigma": 0.5, "epsilon": 0},
        "learnt noise in the last layers explores",
        (NOISY,),
        "noise in the last hidden layer and the head alone; evaluated without noise",
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
        "double, dueling, n-step, prioritized, categorical and noisy",
        (RAINBOW,),
        "the priority is the cross-entropy (the KL divergence); evaluated without noise",
    ),
    "munchausen_dqn": AgentEntry(
        "dqn",
        {"bootstrap": "munchausen"},
        "the log-probability of the action is added to the reward",
        (Paper("Vieillard et al., 2020", "https://arxiv.org/abs/2007.14430"),),
        "none",
    ),
    "hl_gauss": AgentEntry(
        "dqn",
        {"head": "hl_gauss", "num_atoms": 51},
        "values as histograms, learnt as a classification",
        (Paper("Farebrother et al., 2024", "https://arxiv.org/abs/2403.03950"),),
        "the support is derived from the rewards of the first steps where --v-min and --v-max do not give it; the "
        "preset atari has the Adam settings of c51, not checked against the paper",
    ),
    "bootstrapped_dqn": AgentEntry(
        "double_dqn",
        {"head": "ensemble", "num_members": 10, "epsilon": 0},
        "an ensemble, one member for an episode, each with a fixed prior",
        (
            Paper("Osband et al., 2016", "https://arxiv.org/abs/1602.04621"),
            Paper("Osband et al., 2018", "https://arxiv.org/abs/1806.03335", "priors, --prior-scale"),
        ),
        "members share the torso, and the priors one of their own; evaluated by their mean (a vote)",
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
        "an LSTM, trained on sequences with stored recurrent state",
        (
            Paper("Kapturowski et al., 2019", "https://openreview.net/forum?id=r1lyTjAqYX"),
            Paper("Pohlen et al., 2018", "https://arxiv.org/abs/1805.11593", "value rescaling"),
        ),
        "one actor with one epsilon; no burn-in where an episode begins",
    ),
    "drq": AgentEntry(
        "n_step_double_dqn",
        {"dueling": True, "augmentation": "auto"},
        "images shifted by a few pixels for the learner (vectors are not)",
        (Paper("Yarats et al., 2021", "https://arxiv.org/abs/2004.13649"),),
        "shifts alone (and intensity), one for the value and one for the target (K = M = 1)",
    ),
    "zp": AgentEntry(
        "n_step_double_dqn",
        {"self_prediction": "mlp"},
        "features predict the next ones of a slow copy (ZP)",
        (ZP,),
        "on double DQN over n steps, feed-forward unless --core lstm; the paper's agents of vectors are TD3",
    ),
    "byol_pi": AgentEntry(
        "zp",
        {"self_prediction": "linear", "action_conditional": False, "predictor_rate": 10.0},
        "features predict the next ones by one matrix (BYOL-Pi)",
        (KHETARPAL,),
        "the ratio of the learning rates and the agent around it are ours",
    ),
    "byol_ac": AgentEntry(
        "byol_pi",
        {"action_conditional": True},
        "features predict the next ones by a matrix for each action (BYOL-AC)",
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
        "Rainbow whose features predict those of the next 5 observations",
        (SPR,),
        "no batch normalization in the transition, no dropout, one norm for all gradients; projections without noise",
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
        "SPR with resets, and a slow target network that acts",
        (SR_SPR,),
        "a reset keeps the optimizer's count of steps; priorities are those of rainbow",
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
        "SR-SPR with n steps and a discount that change after each reset",
        (BBF,),
        "as sr_spr; the wide torso is one of the preset atari",
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
    """Add an agent of one's own to the table, under which ``polyak train NAME`` and ``polyak.train(NAME)`` find it.

    Args:
        name: Name of the agent.
        begins_with: Name of the agent that it differs from.
        fields: Leaves of the agent and of the loop that differ, by name.
        summary: Description on one line.
        network: Import path of a network, see :class:`polyak.experiments.runs.config.RunConfig`.
        terms: Texts of terms, ``NAME=WEIGHT*module:term``.
        maker: Import path of a function that makes the agent.

    Raises:
        ValueError: if the name is taken by another agent, or ``begins_with`` or a field does not exist.
        TypeError: if a value is of another type than the field's.

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
        raise ValueError(f"name: got {name!r}; expected letters, digits and _, and a name that no other agent has.")
    replace(make_configs(begins_with), fields)  # raises where a field is wrong
    AGENTS[name] = entry


def own_leaves(name: str) -> dict[str, Any]:
    """Leaves of a run that an agent brings, those of the agents that it begins with among them.

    >>> own_leaves("rainbow")
    {}
    """
    return {leaf: value for agent in lineage(name) for leaf, value in AGENTS[agent].own.items()}


def lineage(name: str) -> list[str]:
    """Names of the agents that an agent is made from, from the first one to itself.

    Raises:
        ValueError: if no agent has that name.

    >>> lineage("rainbow")
    ['dqn', 'c51', 'rainbow']
    """
    begins_with = AGENTS[check_name(name, AGENTS, "agent")].begins_with
    return [*(lineage(begins_with) if begins_with else []), name]


def make_configs(name: str = DEFAULT_AGENT, preset: str = DEFAULT_PRESET, fields: Mapping[str, Any] = {}) -> Configs:
    """Configs of an agent: its difference, the settings of a preset, and then the given fields.

    Args:
        name: Name of the agent.
        preset: Name of the preset.
        fields: Leaves by name, and unions by the name of a kind or by a part.

    Raises:
        ValueError: if a name is unknown, or a value out of range.
        TypeError: if a value is of another type than the field's.

    >>> configs = make_configs("rainbow", fields={"num_atoms": 21})
    >>> configs.agent.head.num_atoms, configs.loop.draw.most_steps
    (21, 3)
    """
    settings, configs = PRESETS[check_name(preset, PRESETS, "preset")], Configs()
    for agent in lineage(name):
        configs = replace(replace(configs, AGENTS[agent].difference), settings.get(agent, {}))
    return replace(configs, fields)


def differences(name: str, other: str, preset: str = DEFAULT_PRESET) -> list[tuple[str, Any, Any]]:
    """Leaves in which two agents differ: name, value of the first and of the second; "-" where one has no such leaf.

    >>> differences("dqn", "munchausen_dqn")[:2]
    [('bootstrap', 'greedy', 'munchausen'), ('double', False, '-')]
    """
    first, second = (leaves(make_configs(agent, preset)) for agent in (name, other))
    pairs = {leaf: (first.get(leaf, "-"), second.get(leaf, "-")) for leaf in {**first, **second}}
    return [(leaf, *values) for leaf, values in pairs.items() if values[0] != values[1]]
