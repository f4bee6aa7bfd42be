"""The agents there are, in words; imports nothing heavy, so that help and ``polyak agents`` answer at once.

A new agent is one entry here and one in :data:`polyak.experiments.config.AGENTS`; a test holds the two together.
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


AGENTS: Mapping[str, AgentEntry] = {
    "dqn": AgentEntry(
        summary="DQN, double by default (--no-double), with --dueling",
        papers=(
            Paper("Mnih et al., 2015", "https://www.nature.com/articles/nature14236"),
            Paper("van Hasselt et al., 2016", "https://arxiv.org/abs/1509.06461", "double, off with --no-double"),
            Paper("Wang et al., 2016", "https://arxiv.org/abs/1511.06581", "--dueling"),
        ),
        head="Q-values",
        loss="squared or Huber error",
        replay="uniform, n-step",
        target="periodic:100",
        differences="10-step returns, Adam with a learning rate that falls to 0, squared error",
    ),
}


def agents_table(format: Literal["text", "markdown"] = "text") -> str:
    """The table of all agents.

    Args:
        format: text, as narrow as may be and with the differences below it; or markdown, with links, all in one table.

    >>> print(agents_table())  # doctest: +ELLIPSIS
    agent  head      loss                    replay           default target  papers
    dqn    Q-values  squared or Huber error  uniform, n-step  periodic:100    Mnih et al., 2015; ...
    """
    header = ["agent", "head", "loss", "replay", "default target", "papers"]
    if format == "markdown":
        rows = [
            [f"`{name}`", entry.head, entry.loss, entry.replay, f"`{entry.target}`", _links(entry), entry.differences]
            for name, entry in AGENTS.items()
        ]
        return table([*header, _DIFFERENCES], rows, format)
    rows = [
        [name, entry.head, entry.loss, entry.replay, entry.target, "; ".join(paper.authors for paper in entry.papers)]
        for name, entry in AGENTS.items()
    ]
    width = max(map(len, AGENTS))
    differences = "".join(f"{name:{width}}  {entry.differences}\n" for name, entry in AGENTS.items())
    return f"{table(header, rows)}\n{_DIFFERENCES}\n{differences}"


def _links(entry: AgentEntry) -> str:
    links = (f"[{paper.authors}]({paper.url})" + (f" ({paper.part})" if paper.part else "") for paper in entry.papers)
    return "; ".join(links)
