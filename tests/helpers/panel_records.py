"""Records and resolved settings that the panel and the lines of progress show."""

RESOLVED = {
    "folder": "runs/here",
    "replay_bytes": 580_053,
    "targets": {"q": {"rule": "periodic:50"}, "average": {"rule": "incremental:cosine(0.004,1000000)"}},
}


def record_at(step, seconds, **changed):
    record = {
        "step": step,
        "learner_steps": 1234,
        "epsilon": 0.0512,
        "replay_size": 5000,
        "episodes": 4321,
        "return_mean": 120.5,
        "return_mean_20": 187.34,
        "return_mean_window": 201.25,
        "length_mean_20": 187.4,
        "return_last": 231.0,
        "loss": 0.012345,
        "target_distance/q": 0.2134,
        "target_distance/average": 1.25e-5,
        "seconds": seconds,
        "steps_per_second": step / seconds,
        "compile_seconds": 8.34,
        "compilations": 12,
    }
    return record | changed


EVALUATION = {"greedy_return": 480.25, "greedy_standard_error": 3.25, "evaluated_at": 30_000}

PRETRAINING = {"step": 400, "loss": 0.25, "prediction_cosine": 0.875, "projection_spread": 0.871, "seconds": 80.0}
PRETRAINING |= {"feature_rank/0.01": 93.0, "steps_per_second": 5.0, "compile_seconds": 8.34, "compilations": 12}
PRETRAINING |= {"target_distance/target": 1.5}
PROBES = {"probe/few_labels": 0.8534, "probe/linear": 0.95, "probe/knn": 0.93}
