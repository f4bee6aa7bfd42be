"""Figure of docs/targets.md: one learned parameter, and the targets that follow it under four rules.

    python experiments/reproduce/target_rules.py

Writes docs/images/target_rules.png. Takes a few seconds.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from polyak import updates
from polyak.updates import target

ROOT = pathlib.Path(__file__).parents[2]
RULES = ("periodic:100", "incremental:0.02", "incremental:0.005", "frozen")


def online_parameter(steps=600):
    """Trajectory of one learned parameter, which rises to 1 with noise."""
    noise = np.random.default_rng(0).normal(size=steps)
    wander = [0.0]
    for change in noise[1:]:
        wander.append(0.9 * wander[-1] + 0.03 * change)
    return jnp.asarray(1 - np.exp(-np.arange(steps) / 150) + np.array(wander), jnp.float32)


def follow(rule, online):
    """Trajectory of the target, after every learner step."""

    def step(slow, params):
        slow = target.update(rule, params, slow)
        return slow, target.read(rule, params, slow)[0]

    return jax.lax.scan(step, target.init(rule, online[0]), online[1:])[1]


def main():
    """Compute the trajectories and draw them."""
    online = online_parameter()
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(online, color="black", alpha=0.25, linewidth=1.0, label="online")
    for number, rule_text in enumerate(RULES):
        slow = follow(updates.parse(rule_text), online)
        axes.plot(np.arange(1, len(online)), slow, color=f"C{number}", linewidth=1.8, label=rule_text)
    axes.set(xlim=(0, len(online)), xlabel="learner steps", ylabel="one parameter")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path = ROOT / "docs" / "images" / "target_rules.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
