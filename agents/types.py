"""Types of an agent: pure functions over a state, the terms of its loss, and what those read."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

from ..networks import ValueOutput
from ..replay.types import Array, Sample, TimeStep
from ..updates import LearnerState, LearnOutput, Periodic, Target, Variables
from ..updates.target import read

Tree = Any

AVERAGE, MAIN_TARGET, ENCODER = "average", "q", "encoder"
RESETS = "resets"  # of the periodic operations


class RecurrentState(NamedTuple):
    """Recurrent state of an agent that has any; that of the others is ``()``.

    Attributes:
        core: Recurrent state of the network, leaves ``[N, H]``; ``()`` without a core.
        member: ``[N]`` int32, the member of an ensemble that acts in each environment's episode; ``()`` without one.
    """

    core: Tree = ()
    member: Array = ()


class StepExtras(NamedTuple):
    """Arrays that an agent keeps with a step in the replay, where it has any to keep; leaves ``[N, ...]``.

    Attributes:
        core: Recurrent state of the network before the step, zeros where an episode begins.
        a_tm1: ``[N]`` int32, the action before the step.
        r_tm1: ``[N]`` float32, the reward that came with the observation, on the scale of that time.
        member_mask: ``[N, K]`` float32, 1 for the members of an ensemble that learn from the step.
    """

    core: Tree = ()
    a_tm1: Array = ()
    r_tm1: Array = ()
    member_mask: Array = ()


class ActOutput(NamedTuple):
    """Output of acting.

    Attributes:
        action: ``[N]`` int32.
        recurrent_state: State that the agent carries from step to step; ``()`` for agents without one.
        extras: Tree of ``[N, ...]`` arrays to keep with the step in the replay; ``()`` for none.
    """

    action: Array
    recurrent_state: Tree = ()
    extras: Tree = ()


class Outputs(NamedTuple):
    """Outputs of one network on a sample; leaves ``[B, T, ...]``, with ``T`` = 1 for transitions.

    Attributes:
        tm1: Values of the observations acted on.
        t: Values of the observations to bootstrap from, ``n_steps`` later or at the end of the sequence.
        t_again: The same values under another draw of noise or fractions; equal to ``t`` where nothing is drawn.
    """

    tm1: ValueOutput
    t: ValueOutput
    t_again: ValueOutput


class Steps(NamedTuple):
    """Steps that a sample is learnt from, ``[B, T]``, rewards summed over ``n_steps``; ``T`` = 1 for transitions.

    Attributes:
        a_tm1: ``[B, T]`` int32, actions.
        r_t: ``[B, T]`` float32, discounted sums of rewards.
        discount_t: ``[B, T]`` float32, factors of the bootstrap value.
        learns: ``[B, T]`` bool, whether a step is learnt from; neither burn-in nor padding is.
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
        predicted: ``[B, T, K, H]``, predicted features of the observations after them.
        wanted: ``[B, T, K, H]``, the features that are predicted, those of the target.
        valid: ``[B, T, K]`` bool, whether there is something to predict.
    """

    online: Array
    predicted: Array
    wanted: Array
    valid: Array


class Views(NamedTuple):
    """Everything that the terms of a loss read, computed once.

    Attributes:
        sample: Sample, with its images augmented.
        steps: Steps of the sample.
        online: Outputs of the online network, through which gradients flow.
        targets: Name to the outputs of each target network, under stop-gradient.
        variables: Online parameters and module state, for terms that apply the network to something else.
        latents: ``Latents`` of an agent with self-prediction; ``()`` without.
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
        loss: ``[B]``, the loss of each transition or sequence.
        metrics: Name to scalar.
        priorities: ``[B]``, new priorities; ``()`` from every term but the value term.
    """

    loss: Array
    metrics: Mapping[str, Array] = {}
    priorities: Array = ()


class Term(Protocol):
    """Term of an agent's loss."""

    def __call__(self, key: jax.Array, views: Views) -> TermOutput:
        """Computes the term on the views of a sample; the key is consumed."""


class Agent(NamedTuple):
    """Agent: pure functions; ``init`` is jitted, the loop compiles the others and donates.

    Attributes:
        init: ``(key) -> LearnerState``; the key is consumed.
        initial_recurrent_state: ``(key, num_envs) -> recurrent_state``; ``()`` for agents without one.
        act: ``(key, state, recurrent_state, timestep) -> ActOutput``, the agent's own actions for ``[N]`` environments;
            the loop explores (:func:`polyak.agents.epsilon_greedy`). The recurrent state begins again where
            ``timestep.first``. The key is consumed.
        learn: ``(key, state, sample) -> (state, LearnOutput)``, one learner step on a sample ``[B, ...]``; the key is
            consumed.
        targets: Named targets of its learner; the first is the main one.
        evaluate_act: As ``act``, without the agent's own exploration (noise, a member of an ensemble).
        greedy_actions: ``(variables, sample) -> [B] or [B, T] int32``, the greedy actions at the observations acted on,
            for diagnostics of the policy; -1 where a step is not learnt from.
        calibrate: ``(state, rewards [R], discount) -> state``, the state with the support of the head's atoms derived
            from rewards; None where no support is to be derived.
        burn_in: Number of steps of a sequence before those that are learnt from; 0 without a recurrent core.
        future: Number of steps after a transition that the replay draws with it; 0 for none.
        features: ``(variables, sample) -> (features [N, H], valid [N])``, the features of the observations acted on, of
            an agent with self-prediction; None for the others.
        output: ``(name, variables, sample) -> (output [N, M], valid [N])``, what the target of that name computes of
            the observations acted on: values, or features of an encoder; None where its change is not measured.
        periodic: Name to an operation on the state, which the loop applies after the learner step that crosses a
            multiple of its period.
        acts_with: Name of the target whose parameters act; None where those of the online network do.
        q_values: ``(state, recurrent_state, timestep) -> [N, A]``, the values by which ``evaluate_act`` chooses, of
            illegal actions too; None for an agent that has none.
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


def evaluation_state(agent: Agent, state: LearnerState) -> LearnerState:
    """State to evaluate with: the parameters of the Polyak average where the agent keeps one, else those that act.

    Args:
        agent: Agent.
        state: State of the agent; one without targets, as it is read from a file of parameters, is returned.

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
    """Parameters and module state of a target, in the online network's dtypes and under stop-gradient."""
    params, module_state = target.select(state.params), target.select(state.state)
    return Variables(*read(target.rule, params, state.targets[name], module_state))
