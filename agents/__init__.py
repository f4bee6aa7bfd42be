"""polyak.agents: how to act and how to learn."""

from .dqn import DQNConfig, dqn, network_arguments
from .exploration import epsilon_greedy
from .optimizers import make_optimizer
from .types import ActOutput, Agent, evaluation_state

AgentConfig = DQNConfig  # what a loop reads its cadence, draws and exploration from

__all__ = [
    "ActOutput",
    "Agent",
    "AgentConfig",
    "DQNConfig",
    "dqn",
    "epsilon_greedy",
    "evaluation_state",
    "make_optimizer",
    "network_arguments",
]
