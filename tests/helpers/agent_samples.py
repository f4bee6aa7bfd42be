"""Small agents of all kinds, and random samples of the shapes that a replay draws for them."""

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from polyak.agents import Agent, AgentConfig, make_agent
from polyak.agents.config import Ensemble, Network
from polyak.agents.parts import replace
from polyak.agents.types import StepExtras
from polyak.replay import EnvironmentSpec, Sample, Sequence, TimeStep, Transition
from polyak.updates import LearnerState

SPEC = EnvironmentSpec(jax.ShapeDtypeStruct((2,), np.dtype(np.float32)), num_actions=3)
STEPS = 1000
# Sizes of a test; a leaf that an agent does not have is not among its fields.
SIZES = {"hidden_sizes": (8,), "num_atoms": 5, "num_quantiles": 3, "num_members": 3, "lstm_size": 4}


def make_config(**fields: Any) -> AgentConfig:
    """Config of a small network under a constant learning rate, with ``fields`` as in ``make_configs``."""
    base = AgentConfig(network=Network(hidden_sizes=(8,)), learning_rate=0.001)
    return replace(base, fields)


def make(spec: EnvironmentSpec = SPEC, options: Any = {}, **fields: Any) -> Agent:  # noqa: B006
    """Agent of such a config; ``options`` are those of ``make_agent``."""
    given = {"hidden_sizes": Network().hidden_sizes} if "network" in options else {}
    return make_agent(make_config(**given | fields), spec, total_learner_steps=STEPS, **options)


def random_extras(config: AgentConfig, batch: int, rng: np.random.Generator) -> Any:
    """Extras that the agent of a config keeps with a step: ``()``, recurrent state, or the members that learn."""
    core, extras = config.network.core, StepExtras()
    if core is not None:
        hidden, cell = rng.normal(size=(2, batch, core.lstm_size)).astype(np.float32)
        extras = StepExtras(hk.LSTMState(hidden, cell), np.zeros(batch, np.int32), np.zeros(batch, np.float32))
    if isinstance(config.head, Ensemble):
        extras = extras._replace(member_mask=np.ones((batch, config.head.num_members), np.float32))
    return extras if jax.tree.leaves(extras) else ()


def random_observations(spec: EnvironmentSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    shape = (*shape, *spec.observation.shape)
    if spec.observation.dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.normal(size=shape).astype(np.float32)


def random_sample(
    config: AgentConfig,
    spec: EnvironmentSpec = SPEC,
    *,
    steps: int | None = None,
    batch: int = 4,
    n_steps: int = 1,
    seed: int = 0,
) -> Sample:
    """Transitions, or sequences of ``steps`` steps, all of which are valid and do not begin an episode."""
    rng = np.random.default_rng(seed)
    extras, shape = random_extras(config, batch, rng), (batch,) if steps is None else (batch, steps)
    a_tm1 = rng.integers(0, spec.num_actions, shape).astype(np.int32)
    r_t = rng.uniform(0, 1, shape).astype(np.float32)
    discount_t = (0.9 * (rng.random(shape) < 0.8)).astype(np.float32)
    if steps is None:
        obs_tm1, obs_t = (random_observations(spec, shape, rng) for _ in range(2))
        masks = (random_mask(spec, shape, rng), random_mask(spec, shape, rng))
        drawn: Any = Transition(obs_tm1, a_tm1, r_t, discount_t, obs_t, extras, *masks)
        future = random_future(config, spec, obs_tm1, a_tm1, rng)
    else:
        obs, mask = (draw(spec, (batch, steps + 1), rng) for draw in (random_observations, random_mask))
        valid, no = np.ones(shape, bool), np.zeros(batch, bool)
        n = np.full(batch, n_steps, np.int32)
        drawn, future = Sequence(obs, a_tm1, r_t, discount_t, valid, no, ~no, extras, mask, n), ()
    return Sample(drawn, np.ones(batch, np.float32), np.arange(batch), future)


def random_future(
    config: AgentConfig, spec: EnvironmentSpec, obs_tm1: Any, a_tm1: Any, rng: np.random.Generator
) -> Any:
    """Steps after transitions, as far as an agent with self-prediction looks; ``()`` for the others."""
    if config.self_prediction is None:
        return ()
    shape = (len(a_tm1), config.self_prediction.horizon)
    later = random_observations(spec, shape, rng)
    actions = rng.integers(0, spec.num_actions, shape).astype(np.int32)
    actions[:, 0] = a_tm1
    ones, no = np.ones(shape, np.float32), np.zeros(len(a_tm1), bool)
    obs = np.concatenate([obs_tm1[:, None], later], axis=1)
    return Sequence(obs, actions, ones, ones, ones > 0, no, ~no, (), (), np.ones(len(a_tm1), np.int32))


def random_mask(spec: EnvironmentSpec, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    if not spec.action_mask:
        return ()
    mask = rng.random((*shape, spec.num_actions)) < 0.5
    mask[..., -1] = True
    return mask


def timestep(config: AgentConfig, spec: EnvironmentSpec = SPEC, num_envs: int = 4, seed: int = 4) -> TimeStep:
    """First time step of ``num_envs`` episodes; where the spec has masks, action 0 is illegal."""
    observation = random_observations(spec, (num_envs,), np.random.default_rng(seed))
    mask = np.tile(np.arange(spec.num_actions) > 0, (num_envs, 1)) if spec.action_mask else ()
    a_tm1 = np.zeros(num_envs, np.int32) if config.network.core is not None else ()
    return TimeStep(observation, np.zeros(num_envs, np.float32), np.ones(num_envs, bool), mask, a_tm1)


def random_variables(init: Any, *inputs: Any, seed: int = 0) -> tuple[Any, Any]:
    """Random parameters and zeros as module state, of the shapes of ``init(key, *inputs)``; compiles nothing."""
    rng, shapes = np.random.default_rng(seed), jax.eval_shape(init, jax.random.key(0), *inputs)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape).astype(leaf.dtype)), shapes[0])
    return params, jax.tree.map(_zeros, shapes[1])


def random_state(agent: Agent, seed: int = 0) -> LearnerState:
    """State of an agent before its first learner step, with random parameters; compiles nothing."""
    params, state = random_variables(lambda key: agent.init(key)[:2], seed=seed)
    by_path = dict(jax.tree_util.tree_flatten_with_path(params)[0])
    zeros = jax.tree.map(_zeros, jax.eval_shape(agent.init, jax.random.key(0)))
    targets = {
        name: target._replace(
            params=jax.tree_util.tree_map_with_path(lambda path, _: copy(by_path[path]), target.params)
        )
        for name, target in zeros.targets.items()
    }
    return zeros._replace(params=params, state=state, targets=targets)


def copy(tree: Any) -> Any:
    """The tree in arrays of its own, which may be donated."""
    return jax.tree.map(lambda leaf: jax.device_put(np.array(leaf)), tree)


def _zeros(leaf: Any) -> jax.Array:
    return jax.device_put(np.zeros(leaf.shape, leaf.dtype))


def learn(agent: Agent, sample: Sample, steps: int = 3, state: Any = None, key: int = 2) -> Any:
    """State and last output after learner steps on one sample."""
    state, step = random_state(agent) if state is None else state, jax.jit(agent.learn)
    for each in jax.random.split(jax.random.key(key), steps):
        state, output = step(each, state, sample)
    return state, output


def equal(one: Any, other: Any) -> bool:
    """Whether two trees are equal to the bit."""
    trees = (jax.tree.leaves(one), jax.tree.leaves(other))
    return len(trees[0]) == len(trees[1]) and all(np.array_equal(x, y) for x, y in zip(*trees, strict=True))


def table_network() -> hk.Transformed:
    """Values that are the observation times a diagonal of weights, so that a loss can be computed by hand."""
    from polyak.networks import ValueOutput

    def forward(observation: jax.Array) -> ValueOutput:
        return ValueOutput(observation * hk.get_parameter("w", (observation.shape[-1],), init=jnp.ones)[None])

    return hk.transform(forward)
