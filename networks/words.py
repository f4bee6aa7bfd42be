"""Text that describes the computation of a network, to reimplement it from its arrays."""

from collections.abc import Sequence

from .dense import Activation
from .heads import HeadName
from .prediction import ProjectionName
from .torsos import TorsoName
from .value_networks import split_hidden

_NORMALIZED = "This vector x is scaled to (x - min(x)) / (max(x) - min(x) + 0.00001)."
_IMPALA_LAYERS = ("conv", "block_0_conv_0", "block_0_conv_1", "block_1_conv_0", "block_1_conv_1")


def value_network_in_words(
    num_actions: int,
    *,
    torso: TorsoName,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    head: HeadName = "q",
    dueling: bool = False,
    noisy: bool = False,
    noisy_sigma: float = 0.5,
    num_atoms: int = 51,
    v_min: float = -10.0,
    v_max: float = 10.0,
    num_quantiles: int = 64,
    num_members: int = 10,
    prior_scale: float = 1.0,
    num_iterations: int = 1,
    lstm_size: int | None = None,
    torso_width: int = 1,
    normalize: bool = False,
    projection: ProjectionName = "none",
) -> str:
    """Text that describes one step of a network of :func:`make_network` with the key None; the arguments are equal.

    Example:
        >>> from polyak import networks
        >>> networks.value_network_in_words(2, torso="mlp", hidden_sizes=(16,)).split(". ")[3:5]
        ['Linear layers, each followed by relu: torso/mlp/~/linear_0 (16)',
         'The linear layer head/q_values (2) gives the action values']
    """
    del noisy_sigma  # It only scales the noise.
    final = {"gelu": "gelu (its tanh approximation)"}.get(activation, activation)
    shared, own = split_hidden(hidden_sizes, head, dueling, lstm_size, projection)
    words = ["A linear layer is x @ w + b with w [in, out].", "The input is the observation as float32; uint8 / 255."]
    if noisy:
        words.insert(1, "Noisy layers use their means w and b; w_sigma and b_sigma are not needed.")
    words.append(_torso(torso, torso_width, shared, final))
    if normalize:
        words.append(_NORMALIZED)
    if lstm_size is not None:
        words.append(_lstm(num_actions, lstm_size))
    if head == "implicit_quantile":
        words.append(_fractions(num_quantiles))
    outputs = {"categorical": num_atoms, "hl_gauss": num_atoms, "quantile": num_quantiles, "ensemble": num_members}
    outputs["iterated"] = num_iterations + 1
    number = outputs.get(head, 1)
    if dueling and projection == "shared":
        words.append(_hidden(own, final))
        own = ()
    words.append(_numbers(num_actions, head, own, final, dueling, number))
    words.append(_values(head, number, v_min, v_max, prior_scale))
    words.append("The greedy action is the index of the largest value.")
    return " ".join(filter(None, words))


def _list(stem: str, sizes: Sequence[int]) -> str:
    return ", ".join(f"{stem}/~/linear_{index} ({size})" for index, size in enumerate(sizes))


def _torso(torso: TorsoName, width: int, hidden: Sequence[int], final: str) -> str:
    words = []
    if torso != "mlp":
        words.append(_convolutions(torso, width))
    words.append("Flattened in C order.")
    if hidden:
        words.append(f"Linear layers, each followed by {final}: {_list('torso/mlp', hidden)}.")
    return " ".join(words)


def _convolutions(torso: TorsoName, width: int) -> str:
    if torso == "nature":
        return (
            "Convolutions without padding of [height, width, channels] with w [height, width, in, out], each plus b "
            f"and followed by relu: torso/conv2_d ({32 * width} of 8x8, stride 4), torso/conv2_d_1 ({64 * width} of "
            f"4x4, stride 2), torso/conv2_d_2 ({64 * width} of 3x3, stride 1)."
        )
    if torso == "minatar":
        return (
            "A convolution without padding of [height, width, channels] with w [height, width, in, out], plus b and "
            f"followed by relu: torso/conv2_d ({16 * width} of 3x3, stride 1)."
        )
    if torso == "small":
        return (
            "Convolutions of [height, width, channels] with w [height, width, in, out], each plus b. Each pads a side "
            "with one row or column of zeros after the input, and with one before the input if the side is odd: "
            f"torso/conv2_d ({32 * width} of 3x3, stride 2), torso/conv2_d_1 ({64 * width} of 3x3, stride 2), "
            f"torso/conv2_d_2 ({64 * width} of 3x3, stride 2). Each is followed by layer normalization "
            "(torso/layer_norm, torso/layer_norm_1, torso/layer_norm_2) and relu. Layer normalization is "
            "(x - m) / sqrt(v + 0.00001) * scale + offset, with mean m and variance v of all numbers in x, and one "
            "scale and one offset for each channel."
        )
    sections = ". ".join(
        f"Section {section}: "
        + ", ".join(f"torso/section_{section}/{layer} ({size * width} of 3x3)" for layer in _IMPALA_LAYERS)
        for section, size in enumerate((16, 32, 32))
    )
    return (
        "Convolutions of [height, width, channels] with w [height, width, in, out], each plus b, with stride 1 and one "
        "row and column of zeros around the input. Three sections, each applied to the output x of the previous one: "
        "x = the maximum over 3x3 with stride 2 of conv(x); x = x + block_0_conv_1(relu(block_0_conv_0(relu(x)))); "
        "x = x + block_1_conv_1(relu(block_1_conv_0(relu(x)))). The maximum pads a side with minus infinity: once "
        f"after the input, and once before it if the side is odd. {sections}. The last section is followed by relu."
    )


def _lstm(num_actions: int, lstm_size: int) -> str:
    return (
        f"This vector is the features. The recurrent state of the LSTM is two vectors of {lstm_size}, h and c, which "
        "are zero at the first step of an episode. x is the concatenation of the features, the previous action as a "
        f"one-hot vector of {num_actions} and the previous reward; the last two are zero at the first step of an "
        "episode. The "
        "output of the linear layer lstm/linear for the concatenation of x and h is split into four equal parts "
        "i, g, f, o. The new c is sigmoid(f + 1) * c + sigmoid(i) * tanh(g). The new h is sigmoid(o) * tanh(c), and is "
        "the input of the layers that follow."
    )


def _fractions(num_quantiles: int) -> str:
    return (
        f"For each of {num_quantiles} fractions tau, (i + 0.5) / {num_quantiles} for i from 0 to {num_quantiles - 1}, "
        "this vector is multiplied elementwise with an embedding of tau: the linear layer embedding/linear, followed "
        "by relu, of the 64 numbers cos(pi * j * tau), for j from 0 to 63. The layers that follow are applied to each "
        "product."
    )


def _numbers(num_actions: int, head: HeadName, own: Sequence[int], final: str, dueling: bool, outputs: int) -> str:
    """Sentences about the layers of the head, which compute ``outputs`` numbers for each action."""
    name, what = {
        "q": ("q_values", "the action values"),
        "implicit_quantile": ("quantiles", "the quantiles of the actions at that fraction"),
        "quantile": ("quantiles", "the quantiles of each action"),
        "categorical": ("logits", "the logits of each action"),
        "hl_gauss": ("logits", "the logits of each action"),
        "ensemble": ("q_values", "the action values of each member"),
        "iterated": ("q_values", "the action values of each head"),
    }[head]
    rows, columns = (outputs, num_actions) if head in ("ensemble", "iterated") else (num_actions, outputs)
    several = head not in ("q", "implicit_quantile")
    read = f", reshaped in C order to [{rows}, {columns}]," if several else ""
    if dueling:
        over = ", with the mean over the actions" if several else ""
        return (
            f"Two streams of linear layers with {final} between them follow. "
            f"The value: {_list('head/value', (*own, outputs))}. "
            f"The advantages: {_list('head/advantage', (*own, num_actions * outputs))}{read.rstrip(',')}. "
            f"{what[0].upper()}{what[1:]} are value + advantage - mean(advantage){over}."
        )
    hidden = f"{_hidden(own, final)} " if own else ""
    return f"{hidden}The linear layer head/{name} ({num_actions * outputs}){read} gives {what}."


def _hidden(own: Sequence[int], final: str) -> str:
    return f"The linear layer {_list('head/mlp', own)}, followed by {final}."


def _values(head: HeadName, outputs: int, v_min: float, v_max: float, prior_scale: float) -> str:
    """Sentences about the action values as a function of the outputs of the head."""
    if head == "q":
        return ""
    if head in ("quantile", "implicit_quantile"):
        return "The value of an action is the mean of its quantiles."
    if head in ("categorical", "hl_gauss"):
        atoms = (
            f"{outputs} evenly spaced returns from {v_min} to {v_max}, both included"
            if head == "categorical"
            else f"the centres of {outputs} equal bins that divide {v_min} to {v_max}"
        )
        return f"The value of an action is the sum of softmax(its logits) * atoms; the atoms are {atoms}."
    if head == "iterated":
        return "The value of an action is the mean over all heads but the first."
    prior = (
        f"A prior is added: {prior_scale} times the output of a second torso and head with the same layers, without an "
        "LSTM. The names of its arrays begin with prior/ (prior/head/q_values). "
    )
    return f"{prior if prior_scale else ''}The value of an action is the mean over the members."
