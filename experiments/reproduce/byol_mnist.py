"""Results of docs/pretraining.md: BYOL and its ablations on 5000 digits, ``polyak pretrain byol --data mnist5k``.

    python experiments/reproduce/byol_mnist.py [--arms NAME ...] [--seeds SEED ...] [--table-only]

Appends a line per run to docs/results/byol_mnist.jsonl, and writes the table. Skips a run whose command is already in
the file. Takes about twenty minutes on two cores.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

from polyak.experiments.runs.records import read_jsonl

ROOT = pathlib.Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "docs" / "results" / "byol_mnist.jsonl", ROOT / "docs" / "pretraining.md"
START, END = "<!-- arms -->\n", "<!-- end of arms -->"
SHORT = ("--steps", "200")
ARMS = {
    "byol, the default": ((), (0,)),
    "byol, 400 steps": (("--steps", "400"), (0, 1, 2)),
    "byol": (SHORT, (0, 1, 2)),
    "no predictor": ((*SHORT, "--predictor", "none"), (0,)),
    "no stopped gradient": ((*SHORT, "--target", "none", "--no-stop-gradient"), (0,)),
    "target none (SimSiam)": ((*SHORT, "--target", "none"), (0,)),
    "target frozen": ((*SHORT, "--target", "frozen"), (0,)),
    "LARS": ((*SHORT, "--optimizer", "lars", "--learning-rate", "cosine(1,0,100%)"), (0,)),
}


def pretrain(arm, options, seed):
    """Make one run from the command line; return its line of the results."""
    words = command(options, seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "run"
        subprocess.run(
            [sys.executable, "-m", "polyak", *words, "--quiet", "--out", str(folder)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return line(arm, seed, words, folder)


def command(options, seed):
    """Command-line arguments after ``polyak``."""
    return ["pretrain", "byol", "--data", "mnist5k", *options, "--seed", str(seed)]


def line(arm, seed, words, folder):
    """Line of the results for the run in ``folder``."""
    record = list(read_jsonl(folder / "metrics.jsonl"))[-1]
    config = json.loads((folder / "config.json").read_text())
    return {
        "command": shlex.join(["polyak", *words]),
        "arm": arm,
        "seed": seed,
        **json.loads((folder / "evaluation.json").read_text()),
        "feature_rank/0.01": record["feature_rank/0.01"],
        "loss": record["loss"],
        "steps": record["step"],
        "seconds": record["seconds"],
        "versions": config["versions"],
    }


def table(lines):
    """Markdown table with one row per arm; pixels and initialization are those of the first seed."""
    rows = [
        "| arm | seeds | steps | 10 labels a class | all labels | neighbours | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    first = lines[0]
    for name, key in (("pixels", "pixels"), ("encoder at the start", "initial_encoder")):
        rows.append(f"| {name} | {first['seed']} | 0 | {_probes([first], key)} | |")
    for arm in dict.fromkeys(found["arm"] for found in lines):
        runs = [found for found in lines if found["arm"] == arm]
        seeds, steps = " ".join(str(run["seed"]) for run in runs), runs[0]["steps"]
        spread = " ".join(f"{run['projection_spread']:.3f}" for run in runs)
        rows.append(f"| {arm} | {seeds} | {steps} | {_probes(runs, 'encoder')} | {spread} |")
    return "\n".join(rows) + "\n"


def _probes(runs, key):
    names = ("probe/few_labels", "probe/linear", "probe/knn")
    return " | ".join(" ".join(f"{run[key][name]:.3f}" for run in runs) for name in names)


def results():
    """Lines of the file, in the order of the arms."""
    if not RESULTS.is_file():
        return []
    found = [json.loads(text) for text in RESULTS.read_text().splitlines()]
    return sorted(found, key=lambda one: (list(ARMS).index(one["arm"]), one["seed"]))


def main():
    """Make the missing runs, and write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="*", type=int, help="seeds of all arms (default: the seeds of each arm)")
    parser.add_argument("--table-only", action="store_true", help="write the table from the file")
    options = parser.parse_args()
    for arm in () if options.table_only else options.arms:
        words, seeds = ARMS[arm]
        for seed in options.seeds or seeds:
            known = {one["command"] for one in results()}
            if shlex.join(["polyak", *command(words, seed)]) not in known:
                found = json.dumps(pretrain(arm, words, seed))
                RESULTS.parent.mkdir(parents=True, exist_ok=True)
                with RESULTS.open("a") as file:
                    file.write(found + "\n")
    before, _, rest = PAGE.read_text().partition(START)
    made = table(results())
    PAGE.write_text(f"{before}{START}\n{made}\n{END}{rest.partition(END)[2]}")
    print(made, end="")


if __name__ == "__main__":
    main()
