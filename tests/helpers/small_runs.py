"""Runs of seconds: their options, their configs, their records."""

from polyak.experiments.runs.config import from_json
from polyak.experiments.runs.records import TIMES, read_jsonl

SMALL = {
    "--steps": 600,
    "--log-every": 100,
    "--checkpoint-every": 200,
    "--evaluation-episodes": 2,
    "--hidden-sizes": 8,
    "--batch-size": 8,
    "--learning-starts": 50,
    "--replay-capacity": 300,
}


def arguments(command, folder, **changed):
    options = SMALL | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    texts = [text for name, value in options.items() for text in (name, *str(value).split(" "))]
    return [*command, *texts, "--out", str(folder), "--quiet"]


def records(folder):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_jsonl(folder / "metrics.jsonl")]


def config_of(**changed):
    agent = {"hidden_sizes": [8], "batch_size": 8, "learning_starts": 50, "replay_capacity": 300}
    fields = {"steps": 600, "log_every": 100, "checkpoint_every": 200, "evaluation_episodes": 2, **changed}
    return from_json({**fields, "agent": {**agent, **changed.get("agent", {})}})
