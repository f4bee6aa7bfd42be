"""Compilation time of a run, and a warning about repeated compilation."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import jax.monitoring

AGAIN = 10  # compilations of one program after the first record that trigger a warning

# JAX reports the durations of tracing, lowering and compilation of a program, each at its end.
_EVENTS = "/jax/core/compile/"
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Compilations since the listener was registered.

    Attributes:
        seconds: Seconds of tracing, lowering and compilation; nested traces are counted once.
        count: Number of compiled programs.
    """

    def __init__(self) -> None:
        """Start with no compilations."""
        self.seconds, self.count = 0.0, 0
        self._spans: deque[tuple[float, float]] = deque(maxlen=1000)  # start and duration of disjoint spans
        self._names: Counter[str] = Counter()
        self._recorded = self._said = False

    def record(self) -> dict[str, float | int]:
        """Return the fields of a record."""
        if not self._recorded:
            self._recorded = True
            self._names.clear()
        return {"compile_seconds": self.seconds, "compilations": self.count}

    def warnings(self) -> Iterator[str]:
        """Yield a warning, once, about a program that is compiled repeatedly."""
        name, times = max(self._names.items(), key=lambda item: item[1], default=("", 0))
        if self._recorded and not self._said and times >= AGAIN:
            self._said = True
            yield (
                f"{name} was compiled {times} times since the first record, because an argument changes its shape or "
                "dtype. Set JAX_EXPLAIN_CACHE_MISSES=1 in the environment to see which."
            )

    def hear(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        """Handle one event of JAX's monitoring."""
        if not event.startswith(_EVENTS):
            return
        start = time.perf_counter() - duration_secs
        while self._spans and self._spans[-1][0] >= start:
            self.seconds -= self._spans.pop()[1]
        self._spans.append((start, duration_secs))
        self.seconds += duration_secs
        if event == _COMPILED:
            self.count += 1
            self._names[str(kwargs.get("fun_name", "a program"))] += 1


@contextlib.contextmanager
def compilations() -> Iterator[Compilations]:
    """Record all compilations of the process within the context.

    >>> import jax, numpy as np
    >>> with compilations() as found:
    ...     _ = jax.jit(lambda x: x + 1)(np.zeros(3))
    >>> found.count, found.seconds > 0
    (1, True)
    """
    found = Compilations()
    jax.monitoring.register_event_duration_secs_listener(found.hear)
    try:
        yield found
    finally:
        with contextlib.suppress(AssertionError, ValueError):  # the listeners were cleared meanwhile
            jax.monitoring.unregister_event_duration_listener(found.hear)
