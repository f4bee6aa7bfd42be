"""Tables of ``polyak agents``: all agents, or the difference between two. The module imports nothing heavy."""

from typing import Any, Literal

from .agents.config import Munchausen
from .agents.fields import check_name
from .agents.loop_config import Sequences
from .agents.parts import leaves
from .agents.presets import (
    AGENTS,
    DEFAULT_PRESET,
    AgentEntry,
    Configs,
    differences,
    make_configs,
)
from .agents.settings import PRESETS
from .tables import table

Format = Literal["text", "markdown"]


def agents_table(preset: str = DEFAULT_PRESET, format: Format = "text") -> str:
    """Format the table of all agents.

    Args:
        preset: Name of the preset for the column of targets.
        format: Format of the table: text, with the remarks below it, or markdown, with links and a remarks column.

    Raises:
        ValueError: if no preset has that name.

    >>> agents_table().splitlines()[1].partition("  ")[0], "byol" in agents_table(format="markdown")
    ('dqn', True)
    """
    check_name(preset, PRESETS, "preset")
    header = ["agent", "begins with", "head", "loss", "replay", "target", "papers"]
    rows = [_row(name, preset, format == "markdown") for name in AGENTS]
    if format == "markdown":
        rows = [[*row, entry.remarks] for row, entry in zip(rows, AGENTS.values(), strict=True)]
        return table([*header, "remarks"], rows, format)
    width = max(map(len, AGENTS))
    remarks = "".join(f"{name:{width}}  {entry.remarks}\n" for name, entry in AGENTS.items() if entry.remarks != "none")
    return f"{table(header, rows)}\nremarks (the paper's choice in brackets)\n{remarks}"


def difference_table(one: str, other: str, preset: str = DEFAULT_PRESET, format: Format = "text") -> str:
    """Format the table of the fields in which two agents differ; "-" means that an agent has no such field.

    Raises:
        ValueError: if no agent or preset has that name.

    >>> print(difference_table("dqn", "n_step_double_dqn"), end="")
    field    dqn           n_step_double_dqn
    double   False         True
    target   periodic:200  periodic:50
    n_steps  1             10
    """
    found = differences(one, other, preset)
    return table(["field", one, other], [[name, *map(_cell, values)] for name, *values in found], format)


def links(entry: AgentEntry) -> str:
    """Format the papers of an agent as Markdown.

    >>> links(AGENTS["double_dqn"])
    '[van Hasselt et al., 2016](https://arxiv.org/abs/1509.06461)'
    """
    papers = (f"[{paper.authors}]({paper.url})" + (f" ({paper.part})" if paper.part else "") for paper in entry.papers)
    return "; ".join(papers)


def _row(name: str, preset: str, is_markdown: bool) -> list[str]:
    entry, configs = AGENTS[name], make_configs(name, preset)
    columns = [head_column(configs), loss_column(configs), replay_column(configs)]
    begins_with, target = entry.begins_with or "", configs.agent.target
    if is_markdown:
        return [f"`{name}`", begins_with and f"`{begins_with}`", *columns, f"`{target}`", links(entry)]
    return [name, begins_with, *columns, target, "; ".join(paper.authors for paper in entry.papers)]


def _cell(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def head_column(configs: Configs) -> str:
    """Describe an agent's head and its options for the table.

    >>> head_column(make_configs("rainbow"))
    'dueling, noisy, categorical'
    """
    found = leaves(configs.agent)
    words = ["recurrent"] if configs.agent.network.core else []
    words += ["dueling"] if found.get("dueling") else []
    words += ["noisy"] if found.get("noisy_sigma") is not None else []
    return ", ".join([*words, found["head"]])


def loss_column(configs: Configs) -> str:
    """Describe the loss of an agent for the table.

    >>> loss_column(make_configs("iqn")), loss_column(make_configs("r2d2"))
    ('quantile regression', 'squared error, rescaled')
    """
    found = leaves(configs.agent)
    losses = {"categorical": "cross-entropy", "hl_gauss": "cross-entropy"}
    losses |= {"quantile": "quantile regression", "implicit_quantile": "quantile regression"}
    words = [losses.get(found["head"]) or ("Huber" if found["error"] == "huber" else "squared error")]
    words += ["rescaled"] if found.get("value_rescaling") else []
    words += ["Munchausen"] if isinstance(configs.agent.bootstrap, Munchausen) else []
    words += ["self-prediction"] if configs.agent.self_prediction is not None else []
    return ", ".join(words)


def replay_column(configs: Configs) -> str:
    """Describe the sampling of an agent for the table.

    >>> replay_column(make_configs("rainbow")), replay_column(make_configs("dqn"))
    ('prioritized, n-step', 'uniform')
    """
    words = ["prioritized" if configs.loop.prioritized else "uniform"]
    words += ["sequences"] if isinstance(configs.loop.draw.windows, Sequences) else []
    words += ["n-step"] if configs.loop.draw.most_steps > 1 else []
    return ", ".join(words)
