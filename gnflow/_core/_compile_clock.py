"""Measure how long compiling takes."""

import functools
import time
import weakref
from typing import Any

import jax

# Tracing, lowering, and compiling or loading a stored program. A program inside another one reports too.
_EVENTS = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)

_running: "weakref.WeakSet[CompileClock]" = weakref.WeakSet()


class CompileClock:
    """Counts the wall seconds that JAX spends on making programs in this process, from when the clock is made."""

    def __init__(self):
        _listen()
        self._spans: list[tuple[float, float]] = []
        _running.add(self)

    def seconds(self) -> float:
        """Seconds of tracing, lowering and compiling so far. Spans that overlap or contain each other count once."""
        # The length of the union of the spans: summing them would count the inner ones twice.
        total, last = 0.0, 0.0
        for start, end in sorted(self._spans):
            total += max(end - max(start, last), 0.0)
            last = max(last, end)
        return total

    def add(self, start: float, end: float) -> None:
        """Record a span, in seconds of `time.perf_counter`."""
        self._spans.append((start, end))


@functools.cache
def _listen() -> None:
    """Register the listener, once for each process: it stays registered."""

    def listener(event: str, duration_secs: float, **_: Any) -> None:
        if event in _EVENTS:
            now = time.perf_counter()
            for clock in list(_running):
                clock.add(now - duration_secs, now)

    jax.monitoring.register_event_duration_secs_listener(listener)
