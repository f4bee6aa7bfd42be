"""polyak.networks: Haiku torsos and heads, and networks composed of them; imports no other package of polyak.

A torso maps observations ``[B, ...]`` to features ``[B, D]``, a recurrent core maps sequences of features to hidden
states, and a head maps features or hidden states to outputs for each action. A ``Network`` combines them over one tree
of parameters. Parameters and outputs are float32.
"""

from .conv import Conv2D, Lowering, Padding
from .dense import Activation, NoisyLinear, activation_fn
from .heads import CosineEmbedding, DuelingHead, HeadName, LinearHead, ValueOutput, midpoints
from .image_torsos import ImpalaTorso, MinAtarTorso, NatureTorso, SmallTorso, feature_map_shape
from .network import Network, compose, from_haiku, set_support, support
from .prediction import LatentTransition, ProjectionName, TransitionName, normalize_features, unroll_transition
from .projection import ProjectionMLP, ProjectionNetwork, projection_network
from .recurrent import Core, lstm
from .torsos import MLPTorso, TorsoName, make_torso, scale_images
from .value_networks import make_network, value_network
from .words import value_network_in_words

__all__ = [
    "Activation",
    "Conv2D",
    "Core",
    "CosineEmbedding",
    "DuelingHead",
    "HeadName",
    "ImpalaTorso",
    "LatentTransition",
    "LinearHead",
    "Lowering",
    "MLPTorso",
    "MinAtarTorso",
    "NatureTorso",
    "Network",
    "NoisyLinear",
    "Padding",
    "ProjectionMLP",
    "ProjectionName",
    "ProjectionNetwork",
    "SmallTorso",
    "TorsoName",
    "TransitionName",
    "ValueOutput",
    "activation_fn",
    "compose",
    "feature_map_shape",
    "from_haiku",
    "lstm",
    "make_network",
    "make_torso",
    "midpoints",
    "normalize_features",
    "projection_network",
    "scale_images",
    "set_support",
    "support",
    "unroll_transition",
    "value_network",
    "value_network_in_words",
]
