"""Papers of the agents. The module imports nothing heavy."""

from typing import NamedTuple


class Paper(NamedTuple):
    """Paper of an agent.

    Attributes:
        authors: Authors and year.
        url: URL.
        part: Part of the agent that the paper describes; empty for the whole agent.
    """

    authors: str
    url: str
    part: str = ""


DQN = Paper("Mnih et al., 2015", "https://www.nature.com/articles/nature14236")
DOUBLE = Paper("van Hasselt et al., 2016", "https://arxiv.org/abs/1509.06461")
DUELING = Paper("Wang et al., 2016", "https://arxiv.org/abs/1511.06581")
PRIORITIZED = Paper("Schaul et al., 2016", "https://arxiv.org/abs/1511.05952")
C51 = Paper("Bellemare et al., 2017", "https://arxiv.org/abs/1707.06887")
NOISY = Paper("Fortunato et al., 2018", "https://arxiv.org/abs/1706.10295")
N_STEP = Paper("Sutton, 1988", "https://doi.org/10.1007/BF00115009")
SPR = Paper("Schwarzer et al., 2021", "https://arxiv.org/abs/2007.05929")
SR_SPR = Paper("D'Oro et al., 2023", "https://openreview.net/forum?id=OpC-9aBBVJe")
BBF = Paper("Schwarzer et al., 2023", "https://arxiv.org/abs/2305.19452")
ZP = Paper("Ni et al., 2024", "https://arxiv.org/abs/2401.08898")
KHETARPAL = Paper("Khetarpal et al., 2025", "https://arxiv.org/abs/2406.02035")
RAINBOW = Paper("Hessel et al., 2018", "https://arxiv.org/abs/1710.02298")
