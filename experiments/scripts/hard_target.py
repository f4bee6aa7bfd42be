"""Default agent on CartPole-v1, trained without the command line; TARGET is the rule of its target network."""

from polyak import experiments
from polyak.agents import make_agent, make_configs

STEPS = 50_000
TARGET = "periodic:100"


def main(steps=STEPS):
    configs = make_configs(fields={"target": TARGET})
    environment = experiments.make("CartPole-v1", seed=0)
    learner_steps = experiments.total_learner_steps(configs.loop, steps, environment.num_envs)
    agent = make_agent(configs.agent, environment.spec, total_learner_steps=learner_steps)

    replay = experiments.make_replay(agent, environment.spec, configs.loop, environment.num_envs)
    carry = experiments.initial_carry(agent, environment, replay, configs.loop, seed=0)
    loop = experiments.host_loop(agent, environment, replay, configs.loop, carry, steps=steps, record_every=5_000)
    for carry, record in loop:  # noqa: B007 (the last carry is evaluated)
        print({name: record[name] for name in ("step", "return_mean", "loss", "target_distance/q")})

    evaluation_environment = experiments.make("CartPole-v1", num_envs=10, seed=1)
    returns = experiments.evaluate(agent, carry.agent, evaluation_environment, configs.loop, episodes=20)
    print(f"greedy return {returns.mean():.1f}")
    return returns


if __name__ == "__main__":
    main()
