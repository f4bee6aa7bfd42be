"""Folders of runs as ``polyak train`` leaves them, written without training."""

import json

from polyak.experiments.runs.config import to_json
from small_runs import config_of


def write_run(folder, returns, *, greedy=None, length=10, steps=600, evaluations=(None, None), **changed):
    """A run's folder as ``polyak train`` leaves it, with episodes of one length; unfinished without ``greedy``.

    It has two records, each with one of ``evaluations``.
    """
    folder.mkdir(parents=True)
    config = to_json(config_of(steps=steps, **changed))
    (folder / "config.json").write_text(json.dumps({"config": config}))
    ends = [length * (episode + 1) for episode in range(len(returns))]
    middle = len(returns) // 2
    with (folder / "metrics.jsonl").open("w") as metrics:
        for part, evaluation in zip((slice(0, middle), slice(middle, None)), evaluations, strict=True):
            if ends[part]:
                record = {"step": ends[part][-1], "returns": returns[part], "ended_at": ends[part]}
                record |= {} if evaluation is None else {"greedy_return": evaluation}
                metrics.write(json.dumps(record) + "\n")
    if greedy is not None:
        (folder / "evaluation.json").write_text(json.dumps({"mean": greedy}))
    return folder


def write_sweep(folder, settings, scores, *, diverged=(), **fields):
    """A sweep's folder as ``polyak sweep`` leaves it.

    ``settings`` has the swept fields of each setting, and ``scores`` the greedy returns of its seeds; the training
    returns are a tenth of them. ``diverged`` has names of lanes, ``SETTING/seedN``.
    """
    names = []
    for number, (setting, greedy) in enumerate(zip(settings, scores, strict=True)):
        for seed, score in enumerate(greedy):
            names.append(f"{number}/seed{seed}")
            end = {} if names[-1] in diverged else {"greedy": score}
            write_run(folder / names[-1], [score / 10] * 4, seed=seed, **end, **fields, **setting)
            path = folder / names[-1] / "config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"lane_of": "../.."}))
    reasons = dict.fromkeys(diverged, "diverged: loss: got nan at learner step 7.")
    (folder / "sweep.json").write_text(json.dumps({"lanes": names, "diverged": reasons}))
    return folder


def write_two_groups(folder):
    """Three seeds under one target and two under another, a return of 0 and then of ``level`` in each."""
    for target, levels in {"periodic:10": [4.0, 6.0, 8.0], "none": [2.0, 12.0]}.items():
        for seed, level in enumerate(levels):
            returns = [0.0] * (4 + seed) + [level] * (8 - seed)
            path = folder / f"{target.replace(':', '-')}-{seed}"
            write_run(path, returns, greedy=10 * level, seed=seed, target=target)
    return folder
