"""polyak.agents: how to act and how to learn."""

from .config import DQNConfig
from .dqn import dqn
from .exploration import epsilon_greedy
from .optimizers import make_optimizer
from .presets import AGENTS
from .shared import network_arguments, seen_spec
from .types import ActOutput, Agent, evaluation_state

AgentConfig = DQNConfig  # what a loop reads its cadence, draws and exploration from

__all__ = [
    "AGENTS",
    "ActOutput",
    "Agent",
    "AgentConfig",
    "DQNConfig",
    "dqn",
    "epsilon_greedy",
    "evaluation_state",
    "make_optimizer",
    "network_arguments",
    "seen_spec",
]
