"""The agents there are, in words; imports nothing heavy, so that help and ``polyak agents`` answer at once.

A new agent is one entry here and one in :data:`polyak.agents.AGENTS`; a test holds the two together.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from .tables import table

_DIFFERENCES = "differences from the papers, by default"


class Paper(NamedTuple):
    """Where an agent, or a part of it, comes from.

    Attributes:
        authors: and the year, such as "Mnih et al., 2015".
        url: where it can be read.
        part: what of the agent is from there, with the option that switches it; empty for the agent itself.
    """

    authors: str
    url: str
    part: str = ""


class AgentEntry(NamedTuple):
    """What is told of one agent.

    Attributes:
        summary: a line, for the help.
        papers: where it comes from, the first paper first.
        head: what its network gives.
        loss: of its learner.
        replay: how experience is drawn.
        target: the rule of its main target by default.
        differences: from the papers, by default.
    """

    summary: str
    papers: Sequence[Paper]
    head: str
    loss: str
    replay: str
    target: str
    differences: str


_DQN = Paper("Mnih et al., 2015", "https://www.nature.com/articles/nature14236")
_DOUBLE = Paper("van Hasselt et al., 2016", "https://arxiv.org/abs/1509.06461")
_DUELING = Paper("Wang et al., 2016", "https://arxiv.org/abs/1511.06581")
_PRIORITIZED = Paper("Schaul et al., 2016", "https://arxiv.org/abs/1511.05952")
_C51 = Paper("Bellemare et al., 2017", "https://arxiv.org/abs/1707.06887")
_NOISY = Paper("Fortunato et al., 2018", "https://arxiv.org/abs/1706.10295")
_N_STEP = Paper("Sutton, 1988", "https://doi.org/10.1007/BF00115009")
_RAINBOW = Paper("Hessel et al., 2018", "https://arxiv.org/abs/1710.02298")
# What all of them have in common, so that each row tells its own.
COMMON = (
    "All of them: numbers for CartPole-v1 (network, rates, replay, exploration), squared errors (--loss huber clips "
    "them), Adam with a learning rate that falls to 0, and rewards as they are. In brackets: the paper's."
)

AGENTS: Mapping[str, AgentEntry] = {
    "dqn": AgentEntry(
        summary="the quickstart: DQN with double Q-learning and 10-step returns",
        papers=(
            _DQN,
            _DOUBLE._replace(part="double, off with --no-double"),
            _N_STEP._replace(part="--n-steps"),
            _DUELING._replace(part="--dueling"),
        ),
        head="Q-values",
        loss="squared error",
        replay="uniform, n-step",
        target="periodic:100",
        differences="double and 10-step by default (--no-double --n-steps 1 is the paper's), squared error",
    ),
    "double_dqn": AgentEntry(
        summary="double Q-learning: the online network chooses the action",
        papers=(_DOUBLE,),
        head="Q-values",
        loss="squared error",
        replay="uniform",
        target="periodic:100",
        differences="squared error (clipped)",
    ),
    "dueling_dqn": AgentEntry(
        summary="a stream for the value and one for the advantages",
        papers=(_DUELING,),
        head="dueling Q-values",
        loss="squared error",
        replay="uniform",
        target="periodic:100",
        differences="gradients below the streams are not rescaled",
    ),
    "n_step_dqn": AgentEntry(
        summary="returns of several steps before the bootstrap value",
        papers=(_N_STEP, _RAINBOW._replace(part="in a DQN")),
        head="Q-values",
        loss="squared error",
        replay="uniform, n-step",
        target="periodic:100",
        differences="5 steps, uncorrected for the policy, as in Rainbow",
    ),
    "prioritized_dqn": AgentEntry(
        summary="double Q-learning from steps drawn by their error",
        papers=(_PRIORITIZED, _DOUBLE._replace(part="double")),
        head="Q-values",
        loss="squared error",
        replay="prioritized",
        target="periodic:100",
        differences="the importance exponent rises over the run; weights divided by the batch's largest",
    ),
    "c51": AgentEntry(
        summary="probabilities of 51 returns",
        papers=(_C51,),
        head="categorical",
        loss="cross-entropy",
        replay="uniform",
        target="periodic:100",
        differences="support of 0 to 100, the discounted returns of CartPole (--v-min -10 --v-max 10 is the paper's)",
    ),
    "qr_dqn": AgentEntry(
        summary="quantiles of the return at fixed fractions",
        papers=(Paper("Dabney et al., 2018a", "https://arxiv.org/abs/1710.10044"),),
        head="quantiles",
        loss="quantile regression, Huber",
        replay="uniform",
        target="periodic:100",
        differences="50 quantiles (200)",
    ),
    "iqn": AgentEntry(
        summary="quantiles of the return at drawn fractions",
        papers=(Paper("Dabney et al., 2018b", "https://arxiv.org/abs/1806.06923"),),
        head="implicit quantiles",
        loss="quantile regression, Huber",
        replay="uniform",
        target="periodic:100",
        differences="8 fractions everywhere (64); acts on evenly spaced ones, not on drawn ones",
    ),
    "noisy_dqn": AgentEntry(
        summary="learnt noise in the last layers explores",
        papers=(_NOISY,),
        head="noisy Q-values",
        loss="squared error",
        replay="uniform",
        target="periodic:100",
        differences="noise in the last hidden layer and the head alone, of 0.1 at first (0.5); random for the "
        "first 2 % of the run; evaluated without noise",
    ),
    "rainbow": AgentEntry(
        summary="double, dueling, n-step, prioritized, categorical and noisy",
        papers=(_RAINBOW,),
        head="dueling, noisy, categorical",
        loss="cross-entropy",
        replay="prioritized, n-step",
        target="periodic:100",
        differences="priority is the cross-entropy (the KL divergence); noise as in noisy_dqn, and random for the "
        "first 2 % of the run; evaluated without noise",
    ),
    "munchausen_dqn": AgentEntry(
        summary="the reward gets the log-probability of the action",
        papers=(Paper("Vieillard et al., 2020", "https://arxiv.org/abs/2007.14430"),),
        head="Q-values",
        loss="squared error",
        replay="uniform",
        target="periodic:100",
        differences="squared error (Huber)",
    ),
    "hl_gauss": AgentEntry(
        summary="values as histograms, learnt as a classification",
        papers=(Paper("Farebrother et al., 2024", "https://arxiv.org/abs/2403.03950"),),
        head="histogram",
        loss="cross-entropy",
        replay="uniform",
        target="periodic:100",
        differences="support of -5 to 105, around the discounted returns of CartPole (-10 to 10); the target is of the "
        "greedy value, on a plain DQN",
    ),
    "bootstrapped_dqn": AgentEntry(
        summary="an ensemble, one member an episode, each with a fixed prior",
        papers=(
            Paper("Osband et al., 2016", "https://arxiv.org/abs/1602.04621"),
            Paper("Osband et al., 2018", "https://arxiv.org/abs/1806.03335", "priors, --prior-scale"),
        ),
        head="10 sets of Q-values",
        loss="squared error of each",
        replay="uniform, masked",
        target="periodic:100",
        differences="members share the torso, and the priors one of their own; evaluated by their mean (a vote)",
    ),
    "r2d2": AgentEntry(
        summary="an LSTM, learning from sequences with their stored memory",
        papers=(
            Paper("Kapturowski et al., 2019", "https://openreview.net/forum?id=r1lyTjAqYX"),
            Paper("Pohlen et al., 2018", "https://arxiv.org/abs/1805.11593", "value rescaling"),
        ),
        head="recurrent, dueling Q-values",
        loss="squared error, rescaled",
        replay="prioritized sequences",
        target="periodic:100",
        differences="one actor with one epsilon; no burn-in where an episode begins",
    ),
    "drq": AgentEntry(
        summary="images shifted by a few pixels at every look (none for vectors)",
        papers=(Paper("Yarats et al., 2021", "https://arxiv.org/abs/2004.13649"),),
        head="dueling Q-values",
        loss="squared error",
        replay="uniform, n-step",
        target="periodic:100",
        differences="shifts alone (and intensity), one for the value and one for the target (K = M = 1)",
    ),
}


def agents_table(format: Literal["text", "markdown"] = "text") -> str:
    """The table of all agents.

    Args:
        format: text, as narrow as may be and with the differences below it; or markdown, with links, all in one table.

    >>> print(agents_table().splitlines()[1].partition("  ")[0], len(agents_table("markdown").splitlines()))
    dqn 17
    """
    header = ["agent", "head", "loss", "replay", "default target", "papers"]
    if format == "markdown":
        rows = [
            [f"`{name}`", entry.head, entry.loss, entry.replay, f"`{entry.target}`", links(entry), entry.differences]
            for name, entry in AGENTS.items()
        ]
        return table([*header, _DIFFERENCES], rows, format)
    rows = [
        [name, entry.head, entry.loss, entry.replay, entry.target, "; ".join(paper.authors for paper in entry.papers)]
        for name, entry in AGENTS.items()
    ]
    width = max(map(len, AGENTS))
    differences = "".join(f"{name:{width}}  {entry.differences}\n" for name, entry in AGENTS.items())
    return f"{table(header, rows)}\n{_DIFFERENCES}\n{differences}{COMMON}\n"


def links(entry: AgentEntry) -> str:
    """The papers of an agent as Markdown.

    >>> links(AGENTS["double_dqn"])
    '[van Hasselt et al., 2016](https://arxiv.org/abs/1509.06461)'
    """
    papers = (f"[{paper.authors}]({paper.url})" + (f" ({paper.part})" if paper.part else "") for paper in entry.papers)
    return "; ".join(papers)
