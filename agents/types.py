"""Types of an agent: its pure functions, the terms of its loss, and the inputs of the terms."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

from ..networks import ValueOutput
from ..replay.types import Array, Sample, TimeStep
from ..updates import LearnerState, LearnOutput, Periodic, Target, Variables
from ..updates.parts import Rule
from ..updates.target import read

Tree = Any

AVERAGE, MAIN_TARGET, ENCODER = "average", "q", "encoder"
RESETS, SHIFTS = "resets", "shifts"  # names of periodic operations


class RecurrentState(NamedTuple):
    """Recurrent state of an agent with a core or an ensemble; other agents have ``()`` in its place.

    Attributes:
        core: Recurrent state of the network, leaves ``[N, H]``; ``()`` without a core.
        member: ``[N]`` int32, ensemble member that acts in each environment's episode; ``()`` without an ensemble.
    """

    core: Tree = ()
    member: Array = ()


class StepExtras(NamedTuple):
    """Arrays of a step that an agent stores in the replay, leaves ``[N, ...]``; unused fields are ``()``.

    Attributes:
        core: Recurrent state of the network before the step, zeros at the start of an episode.
        a_tm1: ``[N]`` int32, action before the step.
        r_tm1: ``[N]`` float32, reward that came with the observation, with the normalization of that time.
        member_mask: ``[N, K]`` float32, 1 for the ensemble members that learn from the step.
    """

    core: Tree = ()
    a_tm1: Array = ()
    r_tm1: Array = ()
    member_mask: Array = ()


class ActOutput(NamedTuple):
    """Output of acting.

    Attributes:
        action: ``[N]`` int32, actions.
        recurrent_state: Recurrent state after the step; ``()`` for agents without a recurrent state.
        extras: Tree of ``[N, ...]`` arrays to store with the step in the replay; ``()`` for no arrays.
    """

    action: Array
    recurrent_state: Tree = ()
    extras: Tree = ()


class Outputs(NamedTuple):
    """Outputs of one network on a sample; leaves ``[B, T, ...]``, with ``T`` = 1 for transitions.

    Attributes:
        tm1: Values of the observations acted on.
        t: Values of the observations to bootstrap from, ``n_steps`` later or at the end of the sequence.
        t_again: Values as in ``t``, with another sample of noise or fractions; equal to ``t`` without sampling.
    """

    tm1: ValueOutput
    t: ValueOutput
    t_again: ValueOutput


class Steps(NamedTuple):
    """Steps of a sample, ``[B, T]``, with rewards summed over ``n_steps``; ``T`` = 1 for transitions.

    Attributes:
        a_tm1: ``[B, T]`` int32, actions.
        r_t: ``[B, T]`` float32, discounted sums of rewards.
        discount_t: ``[B, T]`` float32, factors of the bootstrap value.
        learns: ``[B, T]`` bool, whether a step is learnt from; False for burn-in and padding.
        action_mask_tm1: ``[B, T, A]`` bool, legal actions at the observations acted on; ``()`` without masks.
        action_mask_t: ``[B, T, A]`` bool, legal actions at the observations to bootstrap from; ``()`` without masks.
    """

    a_tm1: Array
    r_t: Array
    discount_t: Array
    learns: Array
    action_mask_tm1: Array = ()
    action_mask_t: Array = ()


class Latents(NamedTuple):
    """Features and their predictions, for self-prediction; ``K`` is the horizon.

    Attributes:
        online: ``[B, T, H]``, online features of the observations acted on.
        predicted: ``[B, T, K, H]``, predicted features of the next ``K`` observations.
        wanted: ``[B, T, K, H]``, features to predict, from the target network, or from the online network without
            stop_gradient.
        valid: ``[B, T, K]`` bool, whether there is something to predict.
    """

    online: Array
    predicted: Array
    wanted: Array
    valid: Array


class Views(NamedTuple):
    """Inputs of the terms of a loss, computed once.

    Attributes:
        sample: Sample with augmented images.
        steps: Steps of the sample.
        online: Outputs of the online network, through which gradients flow.
        targets: Mapping from name to the outputs of a target network, under stop-gradient.
        variables: Online parameters and module state, for terms that apply the network to other inputs.
        latents: ``Latents`` of an agent with self-prediction; ``()`` for other agents.
    """

    sample: Sample
    steps: Steps
    online: Outputs
    targets: Mapping[str, Outputs]
    variables: Variables
    latents: Any = ()


class TermOutput(NamedTuple):
    """Output of a term.

    Attributes:
        loss: ``[B]``, loss of each transition or sequence.
        metrics: Mapping from name to scalar.
        priorities: ``[B]``, new priorities; ``()`` from all terms but the value term.
    """

    loss: Array
    metrics: Mapping[str, Array] = {}
    priorities: Array = ()


class Term(Protocol):
    """Term of an agent's loss."""

    def __call__(self, key: jax.Array, views: Views) -> TermOutput:
        """Compute the term on the views of a sample; the key is consumed."""


class Agent(NamedTuple):
    """Pure functions of an agent; ``init`` is jitted, the loop jits the others with donation.

    Attributes:
        init: ``(key) -> LearnerState``; the key is consumed.
        initial_recurrent_state: ``(key, num_envs) -> recurrent_state``; ``()`` for agents without one.
        act: ``(key, state, recurrent_state, timestep) -> ActOutput``, the agent's own actions for ``[N]`` environments;
            the loop adds epsilon-greedy exploration (:func:`polyak.agents.epsilon_greedy`). The recurrent state is
            initialised where ``timestep.first``. The key is consumed.
        learn: ``(key, state, sample) -> (state, LearnOutput)``, one learner step on a sample ``[B, ...]``; the key is
            consumed.
        targets: Mapping from name to target; the first is the main target.
        evaluate_act: Function with the signature of ``act``, without the agent's own exploration (noise, one ensemble
            member).
        greedy_actions: ``(variables, sample) -> [B] or [B, T] int32``, greedy actions at the observations acted on, for
            diagnostics of the policy; -1 for steps that are not learnt from.
        calibrate: ``(state, rewards [R], discount) -> state``, the state with the head's support derived from rewards;
            None if no support has to be derived.
        burn_in: Number of burn-in steps of a sequence; 0 without a recurrent core.
        future: Number of steps after a transition that the replay samples with it; 0 for no steps.
        features: ``(variables, sample) -> (features [N, H], valid [N])``, features of the observations acted on, for
            an agent with self-prediction; None for other agents.
        output: ``(name, variables, sample) -> (output [N, M], valid [N])``, output of the named target on the
            observations acted on: values, or features of an encoder; None if its change is not measured.
        periodic: Mapping from name to an operation on the state, which the loop applies after the learner step that
            crosses a multiple of its period.
        acts_with: Name of the target whose parameters act; None for the online parameters.
        q_values: ``(state, recurrent_state, timestep) -> [N, A]``, values from which ``evaluate_act`` chooses, for
            illegal actions too; None for an agent without values.
    """

    init: Callable[[jax.Array], LearnerState]
    initial_recurrent_state: Callable[[jax.Array, int], Tree]
    act: Callable[[jax.Array, LearnerState, Tree, TimeStep], ActOutput]
    learn: Callable[[jax.Array, LearnerState, Sample], tuple[LearnerState, LearnOutput]]
    targets: Mapping[str, Target]
    evaluate_act: Callable[[jax.Array, LearnerState, Tree, TimeStep], ActOutput]
    greedy_actions: Callable[[Variables, Sample], Array]
    calibrate: Callable[[LearnerState, Any, float], LearnerState] | None = None
    burn_in: int = 0
    future: int = 0
    features: Callable[[Variables, Sample], tuple[Array, Array]] | None = None
    output: Callable[[str, Variables, Sample], tuple[Array, Array]] | None = None
    periodic: Mapping[str, Periodic] = {}
    acts_with: str | None = None
    q_values: Callable[[LearnerState, Tree, TimeStep], Array] | None = None


class AgentNumbers(NamedTuple):
    """Numbers of an agent that may be traced, in place of those of its config.

    Attributes:
        rules: Mapping from the name of a target to its rule, a ``TargetRule`` or a ``Partition`` whose fields may be
            traced; targets that are not named keep the rule of the config.
        learning_rate: Learning rate, ``[]`` float32; None for that of the config.
    """

    rules: Mapping[str, Rule] = {}
    learning_rate: Array | None = None


NO_NUMBERS = AgentNumbers()


def evaluation_state(agent: Agent, state: LearnerState) -> LearnerState:
    """Return the state to evaluate, with the parameters of the Polyak average, or of the acting network without one.

    Args:
        agent: Agent.
        state: State of the agent; a state without targets, as read from a file of parameters, is returned unchanged.

    >>> import jax.numpy as jnp
    >>> from polyak.agents import AgentConfig, make_agent
    >>> from polyak.replay import EnvironmentSpec
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> agent = make_agent(AgentConfig(act_with="target"), spec, total_learner_steps=100)
    >>> state = agent.init(jax.random.key(0))
    >>> other = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    >>> bool(evaluation_state(agent, other).params["head/q_values"]["w"].any())
    True
    """
    name = AVERAGE if AVERAGE in state.targets else agent.acts_with
    if name is None or name not in state.targets:
        return state
    variables = read_target(agent.targets[name], state, name)
    return state._replace(params=variables.params, state=variables.state)


def read_target(target: Target, state: LearnerState, name: str) -> Variables:
    """Return the parameters and module state of a target, in the online network's dtypes, under stop-gradient."""
    params, module_state = target.select(state.params), target.select(state.state)
    return Variables(*read(target.rule, params, state.targets[name], module_state))
