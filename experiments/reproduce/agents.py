"""Scores of docs/agents.md: every agent with its defaults on CartPole-v1, three seeds of 100 000 environment steps.

    python experiments/reproduce/agents.py [--agents NAME ...] [--seeds SEED ...] [--table-only]

Each run is ``polyak train NAME --steps 100000 --seed SEED``; two runs at a time, with one thread each. Appends a line
per run to docs/results/agents.jsonl, from which it writes the table. Skips a run that the file already contains with
the current config of the agent. Takes a few hours on two cores.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import numpy as np

from polyak.agents import AGENTS
from polyak.experiments.loops.episodes import RECENT
from polyak.experiments.reports.comparison import steps_to
from polyak.experiments.runs.config import from_json, make_run_config
from polyak.experiments.runs.records import read_jsonl, running_mean

ROOT = pathlib.Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "docs" / "results" / "agents.jsonl", ROOT / "docs" / "agents.md"
STEPS, SEEDS, THRESHOLD = 100_000, (0, 1, 2), 400
AT_A_TIME = 2
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
START, END = "<!-- scores -->\n", "<!-- end -->"


def train(agent, seed, steps):
    """Train one agent from the command line; return its line of the results."""
    words = ["train", agent, "--steps", str(steps), "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "run"
        command = [sys.executable, "-m", "polyak", *words, "--quiet", "--out", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | ONE_THREAD)
        records = list(read_jsonl(folder / "metrics.jsonl"))
        evaluation = json.loads((folder / "evaluation.json").read_text())
        config = json.loads((folder / "config.json").read_text())
    returns, ended_at = (np.array([x for record in records for x in record[name]]) for name in ("returns", "ended_at"))
    means, reached = running_mean(returns, RECENT), steps_to(THRESHOLD, returns, ended_at)
    return {
        "command": shlex.join(["polyak", *words]),
        "agent": agent,
        "seed": seed,
        "steps": steps,
        "best_training_return": float(means[RECENT - 1 :].max()) if len(means) >= RECENT else None,
        "training_return": float(means[-1]) if len(means) else None,
        f"steps_to_{THRESHOLD}": int(reached) if math.isfinite(reached) else None,
        "greedy_mean": evaluation["mean"],
        "greedy_standard_error": evaluation["standard_error"],
        "seconds": records[-1]["seconds"],
        "versions": config["versions"],
        "config": config["config"],
    }


def known(path, steps):
    """Lines of the file with the current config of their agent, by agent and seed; the last duplicate is used."""
    lines = read_jsonl(path) if path.exists() else []
    return {(line["agent"], line["seed"]): line for line in lines if line["steps"] == steps and _is_current(line)}


def _is_current(line):
    fields = {"steps": line["steps"], "seed": line["seed"]}
    try:
        return from_json(line["config"]) == make_run_config(line["agent"], fields=fields)
    except (ValueError, TypeError):  # a line of another version, with other agents or fields
        return False


def run_missing(agents, seeds, steps, path):
    """Train the missing runs and append each line when its run ends; return the number of failed runs."""
    there, failed = known(path, steps), 0
    missing = [(agent, seed) for seed in seeds for agent in agents if (agent, seed) not in there]
    path.parent.mkdir(parents=True, exist_ok=True)
    pool = concurrent.futures.ThreadPoolExecutor(AT_A_TIME)
    try:
        runs = {pool.submit(train, agent, seed, steps): f"{agent}, seed {seed}" for agent, seed in missing}
        for done in concurrent.futures.as_completed(runs):
            try:
                line = done.result()
            except subprocess.CalledProcessError as error:
                print(f"{runs[done]}: failed with status {error.returncode}", flush=True)
                failed += 1
                continue
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            shown = ", ".join(f"{name} {line[name]}" for name in ("training_return", "greedy_mean", "seconds"))
            print(f"{runs[done]}: {shown}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def table(lines):
    """Table of results by agent and seed, with one row for each agent that has results."""
    seeds = sorted({seed for _, seed in lines})
    rows = [f"| agent | steps to {THRESHOLD} | training | greedy |", "|---|---|---|---|"]
    for agent in AGENTS:
        own = [lines.get((agent, seed)) for seed in seeds]
        if any(own):
            reached = ", ".join(_reached(line) for line in own)
            over_seeds = " | ".join(_spread(own, name) for name in ("training_return", "greedy_mean"))
            rows.append(f"| [`{agent}`](#{agent}) | {reached} | {over_seeds} |")
    return "\n".join(rows) + "\n"


def _reached(line):
    if line is None:
        return "not run"
    step = line[f"steps_to_{THRESHOLD}"]
    return "never" if step is None else f"{step:,}"


def _spread(lines, name):
    """Mean over the seeds, with the lowest and the highest value in parentheses."""
    values = [line[name] for line in lines if line is not None and line[name] is not None]
    return f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})" if values else "none"


def written(page, lines):
    """Text of the page with the table of these lines between its markers."""
    before, _, rest = page.partition(START)
    return f"{before}{START}\n{table(lines)}\n{END}{rest.partition(END)[2]}"


def main():
    """Train the missing runs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", choices=list(AGENTS), default=list(AGENTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), metavar="SEED")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"number of steps of each run (default: {STEPS})")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    failed = 0 if options.table_only else run_missing(options.agents, options.seeds, options.steps, options.out)
    lines = known(options.out, options.steps)
    if options.out == RESULTS and options.steps == STEPS:
        lines = {key: line for key, line in lines.items() if key[1] in SEEDS}
        PAGE.write_text(written(PAGE.read_text(), lines))
    print(table(lines), end="")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
