"""Several ways to do the same work in, the median seconds of each out. They take turns, so other load slows all."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping


def median_seconds(
    ways: Mapping[str, Callable[[], object]], rounds: Iterable[int], *, warm_up: int = 0, before: int = 0
) -> dict[str, float]:
    """Calls each way once in each of ``rounds``. The first ``warm_up`` rounds do not count.

    ``before``: calls before each one that counts. With some, a way has its own data in the cache, as where it runs all
    the time, and not the data of the way before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in rounds:
        for name, way in ways.items():
            for _ in range(before):
                way()
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[warm_up:]) for name, times in seconds.items()}
