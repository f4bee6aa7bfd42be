"""What JAX compiles while a run goes on."""

import jax
import numpy as np

from polyak.experiments.runs import compile_time
from polyak.experiments.runs.compile_time import AGAIN, Compilations, compilations

TRACE, LOWER, COMPILE = (
    f"/jax/core/compile/{name}_duration" for name in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")
)


def test_only_what_is_compiled_inside_counts():
    @jax.jit
    def double(x):
        return 2 * x

    with compilations() as found:
        double(np.ones(3))
        double(np.ones(3))
        assert found.count == 1
        double(np.ones(4))
    assert found.count == 2
    seconds = found.seconds
    assert seconds > 0
    double(np.ones(5))
    assert found.record() == {"compile_seconds": seconds, "compilations": 2}


def test_what_is_traced_inside_a_trace_counts_once(monkeypatch):
    found = Compilations()
    for moment, event, seconds in (
        (10.0, TRACE, 1.0),
        (18.0, TRACE, 1.0),
        (19.0, TRACE, 0.5),
        (20.0, TRACE, 4.0),  # from 16 on, with the two before it inside
        (22.0, LOWER, 2.0),
        (25.0, COMPILE, 3.0),
        (80.0, "/jax/checkpoint/write", 50.0),
    ):
        monkeypatch.setattr(compile_time.time, "perf_counter", lambda moment=moment: moment)
        found.hear(event, seconds)
    assert found.record() == {"compile_seconds": 1.0 + 4.0 + 2.0 + 3.0, "compilations": 1}


def test_a_program_that_is_compiled_again_and_again_is_said_once():
    @jax.jit
    def learn(x):
        return x + 1

    with compilations() as found:
        for size in range(1, AGAIN + 5):  # before the first record all is new
            learn(np.ones(size))
        assert list(found.warnings()) == []
        found.record()
        for size in range(100, 100 + AGAIN - 1):
            learn(np.ones(size))
        assert list(found.warnings()) == []
        learn(np.ones(99))
        (said,) = found.warnings()
        assert f"jit(learn) was compiled {AGAIN} times since the first record" in said
        learn(np.ones(98))
        assert list(found.warnings()) == []


def test_listeners_that_others_clear():
    with compilations() as found:
        jax.monitoring.clear_event_listeners()
    assert found.count == 0
