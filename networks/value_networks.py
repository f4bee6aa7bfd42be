"""Networks of action values: a torso and a head, as a pair of pure functions."""

from collections.abc import Sequence
from typing import get_args

import haiku as hk
import jax

from ._checks import check_choice, check_positive, check_sizes
from .conv import Lowering
from .heads import DuelingHead, QHead, QOutput
from .torsos import Activation, TorsoName, activation_fn, make_torso, scale_images


def q_network(
    num_actions: int,
    *,
    torso: TorsoName,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    dueling: bool = False,
    lowering: Lowering = "convolution",
) -> hk.Transformed:
    """Builds the network of a DQN: observations through ``scale_images``, a torso and a head.

    The parameters stand under ``torso`` and ``head``. With ``dueling`` the last hidden layer is doubled, one for each
    stream of the head, and those before it are shared: ``torso="nature", hidden_sizes=(512,)`` is the network of Mnih
    et al., and of Wang et al. with ``dueling``.

    Args:
        num_actions: number of actions ``A``, at least 1.
        torso: ``"mlp"`` for any observation, flattened; ``"nature"`` for images, ``[B, H, W, C]`` of at least 36x36.
        hidden_sizes: units of each hidden dense layer, one or more.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        dueling: whether the head has a stream for the value and one for the advantages, see ``DuelingHead``.
        lowering: how convolutions are computed, see ``Conv2D``; parameters and values are those of either.

    Returns:
        ``init(key, observation) -> params``, the same for the same key, and ``apply(params, observation) -> QOutput``,
        where ``observation`` is ``[B, ...]`` of any real dtype and parameters and values are float32.

    Raises:
        TypeError: if ``num_actions`` or a hidden size is no integer.
        ValueError: if one of them is below 1, ``hidden_sizes`` is empty, or a name is unknown; and from ``init`` and
            ``apply``, if the observation does not suit the torso.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> network = networks.q_network(2, torso="mlp", hidden_sizes=(16,))
        >>> params = network.init(jax.random.key(0), jnp.zeros([1, 4]))
        >>> sorted(params)
        ['head/q_values', 'torso/mlp/~/linear_0']
        >>> network.apply(params, jnp.zeros([8, 4])).q_values.shape
        (8, 2)
    """
    check_positive("num_actions", num_actions)
    check_choice("torso", torso, get_args(TorsoName))
    check_choice("lowering", lowering, get_args(Lowering))
    check_sizes("hidden_sizes", hidden_sizes)
    if not hidden_sizes:
        raise ValueError("hidden_sizes: got no layer; expected one or more. Give (64,), for example.")
    activation_fn(activation)  # An unknown name is an error here, before anything is traced.
    hidden = tuple(hidden_sizes)
    shared, streamed = (hidden[:-1], hidden[-1:]) if dueling else (hidden, ())

    def forward(observation: jax.Array) -> QOutput:
        body = make_torso(torso, hidden_sizes=shared, activation=activation, lowering=lowering)
        head = DuelingHead(num_actions, streamed, activation) if dueling else QHead(num_actions)
        out: QOutput = head(body(scale_images(observation)))
        return out

    return hk.without_apply_rng(hk.transform(forward))


def q_network_in_words(
    num_actions: int,
    *,
    torso: TorsoName,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    dueling: bool = False,
) -> str:
    """What :func:`q_network` computes, for whoever rebuilds it elsewhere; the arguments are the same.

    Example:
        >>> from polyak import networks
        >>> networks.q_network_in_words(2, torso="mlp", hidden_sizes=(16,)).split(". ")[3:5]
        ['Linear layers, each followed by relu: torso/mlp/~/linear_0 (16)',
         'The linear layer head/q_values (2) gives the action values']
    """
    final = {"gelu": "gelu (its tanh approximation)"}.get(activation, activation)
    hidden = tuple(hidden_sizes)
    shared, streamed = (hidden[:-1], hidden[-1:]) if dueling else (hidden, ())

    def layers(stem: str, sizes: Sequence[int]) -> str:
        return ", ".join(f"{stem}/~/linear_{index} ({size})" for index, size in enumerate(sizes))

    words = ["A linear layer is x @ w + b, w being [in, out].", "The observation as float32; uint8 is divided by 255."]
    if torso == "nature":
        words.append(
            "Convolutions without padding of [height, width, channels] with w [height, width, in, out], each plus b "
            "and followed by relu: torso/conv2_d (32 of 8x8, stride 4), torso/conv2_d_1 (64 of 4x4, stride 2), "
            "torso/conv2_d_2 (64 of 3x3, stride 1)."
        )
    words.append("Flattened in C order.")
    if shared:
        words.append(f"Linear layers, each followed by {final}: {layers('torso/mlp', shared)}.")
    if dueling:
        words.append(
            f"Two streams from there, linear layers with {final} between them. "
            f"The value: {layers('head/value', (*streamed, 1))}. "
            f"The advantages: {layers('head/advantage', (*streamed, num_actions))}. "
            "The action values are value + advantage - mean(advantage)."
        )
    else:
        words.append(f"The linear layer head/q_values ({num_actions}) gives the action values.")
    words.append("The greedy action is the index of the largest.")
    return " ".join(words)
