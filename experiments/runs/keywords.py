"""Keywords of ``polyak.train`` and ``polyak.pretrain``, for editors; written by docs/options.py."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import gymnasium
import haiku as hk

from ...agents.config import (
    LSTM,
    Categorical,
    ConvPrediction,
    Ensemble,
    Greedy,
    HLGauss,
    ImplicitQuantile,
    LinearPrediction,
    MLPPrediction,
    Munchausen,
    Quantile,
    Resets,
    Scalar,
)
from ...agents.loop_config import Prioritized, Sequences, Transitions, Uniform
from ...agents.optimizer_parts import SGD, Adam, AdamW, RMSProp
from ...agents.pretraining import LARS, MLPPredictor
from ...agents.schedules import Schedule
from ...networks import Network
from .finished import Pretrained, Run


class TrainFields(TypedDict, total=False):
    """Keywords of :func:`polyak.train`."""

    name: str
    """Name of the run's agent in folders, pictures and comparisons."""
    agent_module: str
    """Module that registers agents with polyak.register_agent."""
    network: str | Network | hk.Transformed | hk.TransformedWithState | Callable[[Any], Any] | None
    """Network in the place of the built-in one, module:make: a function of the spec of the observations that
    returns a polyak network or a Haiku transform."""
    terms: Mapping[str, tuple[float, str | Callable[..., Any]]]
    """Terms that are added to the loss, NAME=WEIGHT*module:term."""
    maker: str
    """Function that makes the agent in the place of polyak.agents.make_agent, module:make."""
    env: str | Callable[..., Any] | gymnasium.Env[Any, Any]
    """Id of a Gymnasium environment, CartPole-v1 or module:Name-v0, or module:MyEnv, a class or a function of a
    module in the working directory or on Python's path."""
    env_kwargs: str | Mapping[str, Any]
    """Keyword arguments of the environment, a JSON object such as {"size": 3}."""
    wrappers: Sequence[str | Callable[[Any], Any]]
    """Wrappers of the environment, module:wrap, each a function of an environment that returns one, the innermost
    first."""
    steps: int
    """Number of environment steps, over all environments."""
    num_envs: int
    """Number of environments that are stepped together."""
    workers: int
    """Number of processes that step the environments."""
    worker_timeout: float
    """Number of seconds that a step of a worker process may take."""
    on_env_failure: Literal["stop", "restart"]
    """Consequence of a worker process that raises, dies or hangs: stop, which saves the run and raises an error, or
    restart of that process, whose environments begin new episodes (counted in env_restarts)."""
    seed: int
    """Seed of all random numbers."""
    log_every: int
    """Number of environment steps between two lines of metrics."""
    checkpoint_every: int
    """Number of environment steps between two checkpoints."""
    evaluation_episodes: int
    """Number of episodes of an evaluation, at the end of the run or within it."""
    evaluate_every: int | None
    """Number of environment steps between two evaluations within the run, whose mean return the records have."""
    stop_at_return: float | None
    """Mean return of an evaluation within the run that ends it early; None never does."""
    replay_storage: Literal["memory", "mmap"]
    """Place of the replay's observations: memory, or mmap, a file in the run's folder that is mapped into memory,
    for more observations than memory holds."""
    action_mask: bool
    """Whether the environment lists the legal actions in info["action_mask"]."""
    initial: str | pathlib.Path | Run | Pretrained | None
    """Warm start: a finished run, an export, or a .npz or .safetensors file of either, whose parameters are the
    initial parameters of the network and of its targets. None draws them with the seed."""
    initial_part: Literal["all", "encoder"]
    """Part of the network that starts from initial: all, or encoder, the modules below the head, which come from a
    run of polyak pretrain too."""
    loggers: Sequence[Literal["csv", "tensorboard", "wandb"]]
    """Writers of the metrics besides metrics.jsonl: csv (metrics.csv), tensorboard (tensorboard/), wandb (Weights &
    Biases, offline unless WANDB_MODE is set)."""
    torso: Literal["auto", "mlp", "nature", "impala", "minatar", "small"]
    """Layers below the head: mlp, nature, impala, minatar, small (three of 3x3, for small images), or auto, which
    is nature for images, else mlp."""
    torso_width: int
    """Factor of the number of filters of each convolution of the torso."""
    hidden_sizes: Sequence[int]
    """Number of units of each dense layer."""
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"]
    """Activation function of the dense layers."""
    normalize_features: bool
    """Whether the features of an observation, the output of the torso, are scaled to [0, 1] by their smallest and
    their largest (SPR)."""
    core: Literal["none", "lstm"] | LSTM | None
    """Recurrent core, or none."""
    lstm_size: int
    """Number of units."""
    burn_in: int
    """Number of steps before those that are learnt from, which only bring the recurrent state up to date."""
    head: (
        Literal["scalar", "categorical", "hl_gauss", "quantile", "implicit_quantile", "ensemble"]
        | Scalar
        | Categorical
        | HLGauss
        | Quantile
        | ImplicitQuantile
        | Ensemble
    )
    """Output of the network for each action, and its loss."""
    dueling: bool
    """Whether the head has a stream for the value and one for the advantages."""
    noisy_sigma: float | None
    """Initial scale of the learnt noise in the last layers, which explores."""
    error: Literal["squared", "huber"]
    """Loss of a TD error: squared, or huber, which is linear beyond 1."""
    value_rescaling: bool
    """Whether values are learnt as sign(x) * (sqrt(abs(x) + 1) - 1) + x / 1000, with which rewards need no
    clipping."""
    num_atoms: int
    """Number of atoms, or of bins."""
    v_min: float | None
    """Lowest return of the support: the first atom, or the lower edge of the first bin; None derives it from the
    rewards of the first steps."""
    v_max: float | None
    """Highest return of the support: the last atom, or the upper edge of the last bin; None derives it as well."""
    num_quantiles: int
    """Number of quantiles."""
    num_members: int
    """Number of members."""
    mask_probability: float
    """Probability that a member learns from a step."""
    prior_scale: float
    """Weight of the fixed random network that is added to each member."""
    bootstrap: Literal["greedy", "munchausen"] | Greedy | Munchausen
    """Bootstrap policy: the next action or policy whose value is bootstrapped."""
    double: bool
    """Whether the online network chooses that action, as in double Q-learning."""
    munchausen_weight: float
    """Weight of the log-policy in the reward."""
    munchausen_temperature: float
    """Temperature of the softmax policy of the target network."""
    munchausen_clip: float
    """Lowest value of temperature * log-policy that is added."""
    augmentation: Literal["auto", "none", "shift", "shift_and_intensity"]
    """Augmentation of images as the learner sees them: shift by up to 4 pixels (DrQ), shift_and_intensity, none, or
    auto, which is shift for images, else none."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] | Adam | AdamW | RMSProp | SGD
    """Optimizer of the parameters."""
    optimizer_epsilon: float
    """Constant in the denominator."""
    weight_decay: float
    """Decay of the weights in a step, in units of the learning rate."""
    learning_rate: float | str | Schedule
    """Learning rate, a number or a schedule over learner steps."""
    max_gradient_norm: float | None
    """Global norm to which gradients are clipped; None for no clipping."""
    skip_nonfinite: bool
    """Whether a learner step that comes out NaN or infinite is undone and counted in the metric skipped."""
    target: str
    """Rule of the target network, such as periodic:500, incremental:0.005, frozen or none."""
    average: str
    """Rule of a Polyak average of the parameters to evaluate with, such as incremental:0.001."""
    act_with: Literal["online", "target"]
    """Network that acts, in training and where it is evaluated: online, or target, that of the main rule."""
    self_prediction: Literal["none", "linear", "mlp", "conv"] | LinearPrediction | MLPPrediction | ConvPrediction | None
    """Self-prediction of features as a second term of the loss, by a linear model of a step, by an mlp, or by
    convolutions of images' features, conv."""
    horizon: int
    """Number of steps that are predicted, one after another."""
    prediction_weight: float
    """Weight of the loss of the predictions."""
    prediction_error: Literal["squared", "cosine"]
    """Loss of a prediction: squared, the squared distance, or cosine, which is 2 - 2 * cosine."""
    action_conditional: bool
    """Whether the model sees the action."""
    projection: Literal["none", "streams", "shared"]
    """Projection of the features before they are compared, with a linear predictor on the online side: none,
    streams, the first layers of both streams of a dueling head (SPR), or shared, the hidden layer of the head,
    which its streams then share (SR-SPR, BBF)."""
    predictor_rate: float
    """Learning rate of the model and of the predictor, in units of learning_rate."""
    stop_gradient: bool
    """Whether the gradient stops at the features that are predicted."""
    isotropy: float
    """Weight, within the loss of the predictions, of a penalty on features that are alike: the mean squared
    distance of their correlations from the identity."""
    transition_sizes: Sequence[int]
    """Number of units of each hidden layer."""
    resets: Literal["none", "periodic"] | Resets | None
    """Periodic resets of parts of the network, or none."""
    reset_period: str
    """Period of the resets in learner steps, such as 40000, or in environment steps, such as 20000env."""
    reset_parts: str
    """Parts of the network that are initialised again, and their optimizer state: prefixes of module paths, such as
    head, with spaces between several."""
    shrink_parts: str
    """Parts of the network that move towards newly initialised parameters."""
    shrink: float
    """Weight of the old parameters where they move."""
    batch_size: int
    """Number of transitions or sequences of a learner step."""
    n_steps: float | str | Schedule
    """Number of environment steps whose rewards are summed before the bootstrap value, a number or a schedule."""
    discount: float | str | Schedule
    """Discount of one environment step, a number or a schedule."""
    windows: Literal["transitions", "sequences"] | Transitions | Sequences
    """Windows that are drawn: transitions or sequences."""
    sequence_length: int
    """Number of steps of a sequence that are learnt from."""
    sequence_period: int
    """Number of steps of an episode between two places where a sequence can begin."""
    sampling: Literal["uniform", "prioritized"] | Uniform | Prioritized
    """Sampling of the windows: uniform or prioritized."""
    priority_exponent: float
    """Power of the priority in proportion to which rows are drawn."""
    importance_exponent: float | str | Schedule
    """Power of the importance weights, a number or a schedule."""
    replay_capacity: int
    """Number of environment steps that are kept (the end of each episode takes one more)."""
    frame_stack: int
    """Number of frames that are shown as one observation."""
    learning_starts: int
    """Number of environment steps before the first learner step."""
    train_every: int
    """Number of environment steps between two rounds of learning."""
    learner_steps: int
    """Number of learner steps of a round, in one dispatch."""
    epsilon: float | str | Schedule
    """Probability of a random action, a number or a schedule."""
    normalize_observations: bool
    """Whether observations are centred and divided by their standard deviation, element by element, and clipped to
    [-10, 10]."""
    normalize_rewards: bool
    """Whether rewards are divided by the standard deviation of the discounted return, and, summed over n_steps,
    clipped to [-10, 10]."""


class PretrainFields(TypedDict, total=False):
    """Keywords of :func:`polyak.pretrain`."""

    data: str | pathlib.Path
    """Images: mnist5k (needs the extra images), a .npz with an array images, or a folder of images."""
    steps: int
    """Number of gradient steps."""
    batch_size: int
    """Number of images of a gradient step."""
    seed: int
    """Seed of all random numbers."""
    log_every: int
    """Number of gradient steps between two lines of metrics."""
    probe_every: int
    """Number of gradient steps between two probes of the features, where images have labels."""
    checkpoint_every: int
    """Number of gradient steps between two checkpoints."""
    loggers: Sequence[Literal["csv", "tensorboard", "wandb"]]
    """Writers of the metrics besides metrics.jsonl: csv (metrics.csv), tensorboard (tensorboard/), wandb (Weights &
    Biases, offline unless WANDB_MODE is set)."""
    torso: Literal["mlp", "nature", "impala", "minatar", "small"]
    """Layers of the encoder: small (three convolutions of 3x3, for small images), nature, impala, minatar, or
    mlp."""
    hidden_sizes: Sequence[int]
    """Number of units of each dense layer after them."""
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"]
    """Activation function of the dense layers."""
    projector_hidden: int
    """Number of units of the hidden layer, which has BatchNorm."""
    projection_size: int
    """Length of a projection."""
    predictor: Literal["mlp", "none"] | MLPPredictor | None
    """Predictor of the target's projection: an mlp, or none, without which the projections collapse."""
    predictor_hidden: int
    """Number of units of the hidden layer, which has BatchNorm."""
    max_rotation: float
    """Largest rotation in degrees, to either side."""
    max_scaling: float
    """Largest change of the size."""
    max_shift: float
    """Largest shift along each axis, as a part of the image's side."""
    erase_probability: float
    """Probability that a rectangle of a view is erased."""
    erase_side: float
    """Largest side of the rectangle, as a part of the image's side."""
    optimizer: Literal["adamw", "lars"] | AdamW | LARS
    """Optimizer of the parameters."""
    optimizer_epsilon: float
    """Constant in the denominator."""
    weight_decay: float
    """Decay of the weights in a step, in units of the learning rate."""
    momentum: float
    """Decay of the velocity."""
    trust_coefficient: float
    """Size of a layer's step, relative to the norm of its weights."""
    learning_rate: float | str | Schedule
    """Learning rate, a number or a schedule over gradient steps."""
    target: str
    """Rule of the target network, such as incremental:cosine(0.01), incremental:0.01, frozen or none, which is
    SimSiam."""
    stop_gradient: bool
    """Whether the gradient stops at the target's projections."""
