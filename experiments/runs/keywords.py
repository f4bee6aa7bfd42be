"""Keywords of ``polyak.train`` and ``polyak.pretrain``, for editors; written by docs/options.py."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import gymnasium
import haiku as hk

from ...agents.config import (
    LSTM,
    ConvPrediction,
    FunctionalRegularization,
    Greedy,
    LinearPrediction,
    MLPPrediction,
    Munchausen,
    Resets,
    TrustRegion,
)
from ...agents.head_parts import Categorical, Ensemble, HLGauss, ImplicitQuantile, Iterated, Quantile, Scalar
from ...agents.loop_config import Prioritized, Sequences, Transitions, Uniform
from ...agents.optimizer_parts import SGD, Adam, AdamW, RMSProp
from ...agents.pretraining import LARS, MLPPredictor
from ...agents.schedules import Schedule
from ...networks import Network
from .finished import Pretrained, Run


class TrainFields(TypedDict, total=False):
    """Keywords of :func:`polyak.train`."""

    name: str
    """Name of the agent in folder names, figures and comparisons."""
    agent_module: str
    """Module that registers agents with polyak.register_agent."""
    network: str | Network | hk.Transformed | hk.TransformedWithState | Callable[[Any], Any] | None
    """Network in place of the built-in one, module:make, a function from the observation spec to a polyak network
    or a Haiku transform."""
    terms: Mapping[str, tuple[float, str | Callable[..., Any]]]
    """Terms to add to the loss, NAME=WEIGHT*module:term."""
    maker: str
    """Function to make the agent in place of polyak.agents.make_agent, module:make."""
    env: str | Callable[..., Any] | gymnasium.Env[Any, Any]
    """Environment, given by a Gymnasium id (CartPole-v1 or module:Name-v0) or by a class or function (module:MyEnv)
    of a module in the working directory or on Python's path."""
    env_kwargs: str | Mapping[str, Any]
    """Keyword arguments of the environment as a JSON object, for example {"size": 3}."""
    wrappers: Sequence[str | Callable[[Any], Any]]
    """Wrappers of the environment, module:wrap, functions from an environment to an environment, the innermost
    first."""
    steps: int
    """Number of environment steps, over all environments."""
    num_envs: int
    """Number of environments that are stepped together."""
    workers: int
    """Number of worker processes that step the environments."""
    worker_timeout: float
    """Number of seconds that a step of a worker process may take."""
    on_env_failure: Literal["stop", "restart"]
    """Consequence of a worker process that raises, dies or hangs: stop to save the run and raise an error, or
    restart to replace the process, whose environments start new episodes (counted in env_restarts)."""
    seed: int
    """Seed of all random numbers."""
    log_every: int
    """Number of environment steps between two lines of metrics."""
    checkpoint_every: int
    """Number of environment steps between two checkpoints."""
    evaluation_episodes: int
    """Number of episodes of each evaluation, during the run and at its end."""
    evaluate_every: int | None
    """Number of environment steps between two evaluations during the run. None evaluates only at the end."""
    stop_at_return: float | None
    """Mean return of an evaluation during the run that ends the run early; None never ends it early."""
    replay_storage: Literal["memory", "mmap"]
    """Storage of the replay's observations: memory, or mmap for a memory-mapped file in the run's folder, which may
    be larger than memory."""
    action_mask: bool
    """Whether the environment lists the legal actions in info["action_mask"]."""
    initial: str | pathlib.Path | Run | Pretrained | None
    """Source of a warm start: a finished run, an export, or a .npz or .safetensors file of either, whose parameters
    initialize the network and its targets. None initializes them randomly with the seed."""
    initial_part: Literal["all", "encoder"]
    """Part of the network that starts from initial: all, or encoder for the modules below the head, which a run of
    polyak pretrain can provide too."""
    loggers: Sequence[Literal["csv", "tensorboard", "wandb", "trackio"]]
    """Writers of the metrics in addition to metrics.jsonl: csv (metrics.csv, episodes.csv), tensorboard
    (tensorboard/), wandb (Weights & Biases, offline unless WANDB_MODE is set), trackio (a local database)."""
    torso: Literal["auto", "mlp", "nature", "impala", "minatar", "small"]
    """Layers below the head: mlp, nature, impala, minatar, small (three 3x3 convolutions, for small images), or
    auto (nature for images, otherwise mlp)."""
    torso_width: int
    """Multiplier of the number of filters in each convolution of the torso."""
    hidden_sizes: Sequence[int]
    """Number of units in each dense layer."""
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"]
    """Activation function of the dense layers."""
    normalize_features: bool
    """Whether to scale the torso's features of each observation to [0, 1] by their minimum and maximum (SPR)."""
    core: Literal["none", "lstm"] | LSTM | None
    """Recurrent core between torso and head: lstm, or none."""
    lstm_size: int
    """Number of LSTM units."""
    burn_in: int
    """Number of steps at the start of a sequence that only update the recurrent state."""
    head: (
        Literal["scalar", "categorical", "hl_gauss", "quantile", "implicit_quantile", "ensemble", "iterated"]
        | Scalar
        | Categorical
        | HLGauss
        | Quantile
        | ImplicitQuantile
        | Ensemble
        | Iterated
    )
    """Head of the network: its output for each action, and the loss of that output."""
    dueling: bool
    """Whether to split the head into a value stream and an advantage stream."""
    noisy_sigma: float | None
    """Initial scale of the learnt exploration noise in the last layers; None disables the noise."""
    error: Literal["squared", "huber"]
    """Loss of the TD error: squared, or huber, which is linear beyond an error of 1."""
    value_rescaling: bool
    """Whether to learn rescaled values, sign(x) * (sqrt(abs(x) + 1) - 1) + x / 1000, so that rewards need no
    clipping."""
    num_atoms: int
    """Number of atoms or bins of the support."""
    v_min: float | None
    """Lowest return of the support: the first atom, or the lower edge of the first bin; None derives it from the
    rewards of the first steps."""
    v_max: float | None
    """Highest return of the support: the last atom, or the upper edge of the last bin; None derives it from the
    rewards of the first steps."""
    num_quantiles: int
    """Number of quantiles."""
    num_members: int
    """Number of ensemble members."""
    mask_probability: float
    """Probability that a member learns from a step."""
    prior_scale: float
    """Weight of the fixed random prior network in each member, or 0 for no prior."""
    num_iterations: int
    """Number of heads that learn (K), each of which is one iteration of the Bellman operator further than the head
    before it."""
    shift_every: str
    """Period of the shift of the heads in learner steps, such as 200, or in environment steps, such as 8000env."""
    shift_moments: bool
    """Whether a shift of the heads also moves the optimizer's moments of their parameters."""
    bootstrap: Literal["greedy", "munchausen"] | Greedy | Munchausen
    """Bootstrap policy: greedy (the value of one next action) or munchausen (a soft value of all actions)."""
    double: bool
    """Whether the online network chooses the next action, as in double Q-learning."""
    munchausen_weight: float
    """Weight of the log-policy in the reward."""
    munchausen_temperature: float
    """Temperature of the target network's softmax policy."""
    munchausen_clip: float
    """Lower bound of temperature * log-policy in the reward."""
    augmentation: Literal["auto", "none", "shift", "shift_and_intensity"]
    """Augmentation of sampled images: shift (by up to 4 pixels, DrQ), shift_and_intensity, none, or auto (shift for
    images, otherwise none)."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] | Adam | AdamW | RMSProp | SGD
    """Optimizer of the parameters."""
    optimizer_epsilon: float
    """Constant added to the denominator."""
    weight_decay: float
    """Weight decay per step, as a multiple of the learning rate."""
    learning_rate: float | str | Schedule
    """Learning rate, a number or a schedule over learner steps."""
    max_gradient_norm: float | None
    """Global norm to which gradients are clipped; None disables clipping."""
    skip_nonfinite: bool
    """Whether to undo a learner step whose result is NaN or infinite, and count it in the metric skipped."""
    target: str
    """Rule of the target network, such as periodic:500, incremental:0.005, frozen or none."""
    target_role: Literal["bootstrap", "functional", "trust_region"] | FunctionalRegularization | TrustRegion | None
    """Role of the target network in the value loss: bootstrap (bootstrap targets are its values), functional (the
    loss penalizes the distance to its values), or trust_region (the loss is dropped far from its values)."""
    functional_weight: float
    """Weight of half the squared distance between the values of the online network and the target network."""
    trust_region_width: float
    """Largest distance between the values of the online network and the target network, in standard deviations of
    the TD errors of the batch."""
    average: str
    """Rule of the Polyak average to evaluate with, such as incremental:0.001, or none to evaluate the network that
    acts."""
    act_with: Literal["online", "target"]
    """Network that acts, in training and in evaluation: online, or target (the main target network)."""
    self_prediction: Literal["none", "linear", "mlp", "conv"] | LinearPrediction | MLPPrediction | ConvPrediction | None
    """Transition model of the self-prediction loss: linear, mlp, conv (for images), or none for no such loss."""
    horizon: int
    """Number of future steps to predict."""
    prediction_weight: float
    """Weight of the prediction loss."""
    prediction_error: Literal["squared", "cosine"]
    """Loss of a prediction: squared (squared distance) or cosine (2 - 2 * cosine similarity)."""
    action_conditional: bool
    """Whether the transition model takes the action as an input."""
    projection: Literal["none", "streams", "shared"]
    """Projection of the features before they are compared: none, streams (the first layers of both streams of a
    dueling head, as in SPR), or shared (the hidden layer of the head, which its streams then share, as in SR-SPR
    and BBF)."""
    predictor_rate: float
    """Learning rate of the transition model and the predictor, as a multiple of learning_rate."""
    stop_gradient: bool
    """Whether to stop the gradient at the features to predict."""
    isotropy: float
    """Weight, within the prediction loss, of a penalty on correlated features: the mean squared difference of the
    features' correlations from the identity."""
    transition_sizes: Sequence[int]
    """Number of units in each hidden layer of the transition model."""
    resets: Literal["none", "periodic"] | Resets | None
    """Resets of parts of the network: periodic, or none."""
    reset_period: str
    """Period of the resets in learner steps, such as 40000, or in environment steps, such as 20000env."""
    reset_parts: str
    """Parts of the network to initialise again with their optimizer state, as prefixes of module paths with spaces
    between them, such as 'head predictor'."""
    shrink_parts: str
    """Parts of the network to move towards newly initialised parameters, as prefixes of module paths with spaces
    between them."""
    shrink: float
    """Weight of the old parameters in shrink_parts."""
    batch_size: int
    """Number of transitions or sequences in the batch of a learner step."""
    n_steps: float | str | Schedule
    """Number of environment steps in an n-step return, a number or a schedule."""
    discount: float | str | Schedule
    """Discount factor per environment step, a number or a schedule."""
    windows: Literal["transitions", "sequences"] | Transitions | Sequences
    """Type of the sampled windows: transitions or sequences."""
    sequence_length: int
    """Number of steps of a sequence to learn from, without the burn-in."""
    sequence_period: int
    """Number of steps between the possible starts of two sequences in an episode."""
    sampling: Literal["uniform", "prioritized"] | Uniform | Prioritized
    """Sampling distribution over the windows: uniform or prioritized."""
    priority_exponent: float
    """Exponent of the priority in the sampling probability."""
    importance_exponent: float | str | Schedule
    """Exponent of the importance-sampling weights, a number or a schedule."""
    replay_capacity: int
    """Number of environment steps that the replay holds (each episode's end takes one more)."""
    frame_stack: int
    """Number of frames stacked into one observation."""
    learning_starts: int
    """Number of environment steps before the first learner step."""
    train_every: int
    """Number of environment steps between two rounds of learning."""
    learner_steps: int
    """Number of learner steps in a round, all in one dispatch."""
    epsilon: float | str | Schedule
    """Probability of a random action, a number or a schedule."""
    normalize_observations: bool
    """Whether to normalize each element of the observations by its running mean and standard deviation, and clip it
    to [-10, 10]."""
    normalize_rewards: bool
    """Whether to divide rewards by the standard deviation of the discounted return, and clip their n-step sums to
    [-10, 10]."""
    loop: Literal["host", "device", "auto"]
    """Loop that trains: host for any environment, device for a functional environment that is compiled together
    with replay and learning, or auto for device wherever it can run the config."""


class PretrainFields(TypedDict, total=False):
    """Keywords of :func:`polyak.pretrain`."""

    data: str | pathlib.Path
    """Source of the images: mnist5k (requires the extra images), a .npz file with an array images, or a folder of
    images."""
    steps: int
    """Number of gradient steps."""
    batch_size: int
    """Number of images of a gradient step."""
    seed: int
    """Seed of all random numbers."""
    log_every: int
    """Number of gradient steps between two lines of metrics."""
    probe_every: int
    """Number of gradient steps between two probes of the features, for images with labels."""
    checkpoint_every: int
    """Number of gradient steps between two checkpoints."""
    loggers: Sequence[Literal["csv", "tensorboard", "wandb", "trackio"]]
    """Writers of the metrics in addition to metrics.jsonl: csv (metrics.csv, episodes.csv), tensorboard
    (tensorboard/), wandb (Weights & Biases, offline unless WANDB_MODE is set), trackio (a local database)."""
    torso: Literal["mlp", "nature", "impala", "minatar", "small"]
    """Layers of the encoder: small (three 3x3 convolutions, for small images), nature, impala, minatar, or mlp."""
    hidden_sizes: Sequence[int]
    """Number of units in each dense layer after the torso."""
    activation: Literal["relu", "elu", "gelu", "silu", "tanh"]
    """Activation function of the dense layers."""
    projector_hidden: int
    """Number of units in the projector's hidden layer, which has BatchNorm."""
    projection_size: int
    """Number of elements of a projection."""
    predictor: Literal["mlp", "none"] | MLPPredictor | None
    """Predictor of the target network's projection: mlp, or none, with which the projections collapse."""
    predictor_hidden: int
    """Number of units in the predictor's hidden layer, which has BatchNorm."""
    max_rotation: float
    """Largest rotation in degrees, in either direction."""
    max_scaling: float
    """Largest relative change of size."""
    max_shift: float
    """Largest shift along each axis, as a fraction of the image's side."""
    erase_probability: float
    """Probability that a rectangle of a view is erased."""
    erase_side: float
    """Largest side of the erased rectangle, as a fraction of the image's side."""
    optimizer: Literal["adamw", "lars"] | AdamW | LARS
    """Optimizer of the parameters."""
    optimizer_epsilon: float
    """Constant added to the denominator."""
    weight_decay: float
    """Weight decay per step, as a multiple of the learning rate."""
    momentum: float
    """Momentum, the decay of the velocity per step."""
    trust_coefficient: float
    """Trust coefficient: norm of a layer's step relative to the norm of its weights."""
    learning_rate: float | str | Schedule
    """Learning rate, a number or a schedule over gradient steps."""
    target: str
    """Rule of the target network, such as incremental:cosine(0.01), incremental:0.01, frozen or none (SimSiam)."""
    stop_gradient: bool
    """Whether to stop the gradient at the target's projections."""
