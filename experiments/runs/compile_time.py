"""How long JAX compiles while a run goes on, and a word where it does not end."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import jax.monitoring

AGAIN = 10  # times that one program is compiled after the first record before it is said

# JAX reports how long it traced, lowered and compiled a program, each when it is done.
_EVENTS = "/jax/core/compile/"
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """What was compiled since it listens.

    Attributes:
        seconds: that tracing, lowering and compiling took; what was traced inside another trace counts once.
        count: programs compiled.
    """

    def __init__(self) -> None:
        """Nothing was compiled yet."""
        self.seconds, self.count = 0.0, 0
        self._spans: deque[tuple[float, float]] = deque(maxlen=1000)  # start and seconds; none lies inside another
        self._names: Counter[str] = Counter()
        self._recorded = self._said = False

    def record(self) -> dict[str, float | int]:
        """The fields that a record has of it."""
        if not self._recorded:
            self._recorded = True
            self._names.clear()
        return {"compile_seconds": self.seconds, "compilations": self.count}

    def warnings(self) -> Iterator[str]:
        """Says, once, that a program is compiled again and again."""
        name, times = max(self._names.items(), key=lambda item: item[1], default=("", 0))
        if self._recorded and not self._said and times >= AGAIN:
            self._said = True
            yield (
                f"{name} was compiled {times} times since the first record: something that it is given changes its "
                "shape or dtype. JAX_EXPLAIN_CACHE_MISSES=1 in the environment shows what."
            )

    def hear(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        """Takes what JAX reports."""
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
    """Listens to what JAX compiles, in the whole process, for as long as the context lasts.

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
        with contextlib.suppress(AssertionError, ValueError):  # somebody has cleared the listeners
            jax.monitoring.unregister_event_duration_listener(found.hear)
