"""polyak.networks: Haiku torsos and heads, and the networks composed of them; it knows no other part of polyak.

A torso takes observations ``[B, ...]`` to features ``[B, D]``, a head takes features to numbers of each action, and a
network is one of each, which gives a ``ValueOutput``. Everything is float32. ``init`` takes a key, and ``apply`` a key
or None: noisy layers and implicit quantiles alone draw from it.
"""

from .conv import Conv2D, Lowering, Padding
from .dense import Activation, NoisyLinear, activation_fn
from .heads import CosineEmbedding, DuelingHead, HeadName, LinearHead, ValueOutput, midpoints
from .image_torsos import ImpalaTorso, MinAtarTorso, NatureTorso
from .recurrent import RecurrentNetwork, recurrent_value_network
from .torsos import MLPTorso, TorsoName, make_torso, scale_images
from .value_networks import value_network
from .words import value_network_in_words

__all__ = [
    "Activation",
    "Conv2D",
    "CosineEmbedding",
    "DuelingHead",
    "HeadName",
    "ImpalaTorso",
    "LinearHead",
    "Lowering",
    "MLPTorso",
    "MinAtarTorso",
    "NatureTorso",
    "NoisyLinear",
    "Padding",
    "RecurrentNetwork",
    "TorsoName",
    "ValueOutput",
    "activation_fn",
    "make_torso",
    "midpoints",
    "recurrent_value_network",
    "scale_images",
    "value_network",
    "value_network_in_words",
]
