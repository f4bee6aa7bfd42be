"""A DQN on CartPole-v1 without the command line: agent, environment and loop by hand; TARGET says the rule."""

from polyak import experiments
from polyak.agents import DQNConfig, dqn

STEPS = 50_000
TARGET = "incremental:0.01"


def main(steps=STEPS):
    config = DQNConfig(target=TARGET)
    environment = experiments.make("CartPole-v1", seed=0)
    learner_steps = experiments.total_learner_steps(config, steps, environment.num_envs)
    agent = dqn(config, environment.spec, total_learner_steps=learner_steps)

    carry = experiments.initial_carry(agent, environment, config, seed=0)
    loop = experiments.host_loop(agent, environment, config, carry, steps=steps, record_every=5_000)
    for carry, record in loop:  # noqa: B007 (the last carry is evaluated)
        print({name: record[name] for name in ("step", "return_mean", "loss", "target_distance/q")})

    evaluation_environment = experiments.make("CartPole-v1", num_envs=10, seed=1)
    returns = experiments.evaluate(agent, carry.agent, evaluation_environment, episodes=20)
    print(f"greedy return {returns.mean():.1f}")
    return returns


if __name__ == "__main__":
    main()
