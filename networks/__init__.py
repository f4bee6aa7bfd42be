"""polyak.networks: Haiku torsos and heads, and the networks composed of them; it knows no other part of polyak.

A torso takes observations ``[B, ...]`` to features ``[B, D]``, a head takes features to a NamedTuple, and a network is
one of each. Everything is float32 and without randomness: a network's ``init`` alone takes a key.
"""

from .conv import Conv2D, Lowering, Padding
from .heads import DuelingHead, QHead, QOutput
from .torsos import Activation, MLPTorso, NatureTorso, TorsoName, activation_fn, make_torso, scale_images
from .value_networks import q_network, q_network_in_words

__all__ = [
    "Activation",
    "Conv2D",
    "DuelingHead",
    "Lowering",
    "MLPTorso",
    "NatureTorso",
    "Padding",
    "QHead",
    "QOutput",
    "TorsoName",
    "activation_fn",
    "make_torso",
    "q_network",
    "q_network_in_words",
    "scale_images",
]
