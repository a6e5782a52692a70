"""The progress of a training run in; printed lines out."""

import math
import time

from glot.config import Recipe

REPORT_SECONDS = 20.0  # shortest time between two lines within an epoch


class ProgressLines:
    """Prints how far a run has come, and about how long the rest takes. ``first``: steps done by earlier starts."""

    def __init__(self, recipe: Recipe, first: int) -> None:
        self.recipe, self.first = recipe, first
        self.total = recipe.epochs * recipe.steps_per_epoch
        self.started = self.last_reported = time.monotonic()
        if first:
            print(f"continues after step {first} of {self.total}", flush=True)

    @property
    def due(self) -> bool:
        """Whether the last line was printed long enough ago."""
        return time.monotonic() - self.last_reported >= REPORT_SECONDS

    def report(self, done: int, *, loss: float, rate: float, best: float, error: float = math.inf) -> None:
        """Prints a line after ``done`` steps.

        ``rate``: windows/s. ``best`` and ``error``: PA-MPJPE (mm) of the best epoch and of the epoch that has just
        ended; an infinite value is not printed.
        """
        now = time.monotonic()
        self.last_reported = now
        left = (now - self.started) / max(done - self.first, 1) * (self.total - done)
        epoch = -(-done // self.recipe.steps_per_epoch)
        parts = [f"epoch {epoch}/{self.recipe.epochs}", f"step {done}/{self.total}", f"loss {loss:.2f}"]
        parts.append(f"{rate:.0f} windows/s")
        if math.isfinite(error):
            parts.append(f"val PA-MPJPE {error:.1f} mm")
        if math.isfinite(best):
            parts.append(f"best {best:.1f}")
        print("  ".join([*parts, f"about {duration(left)} left"]), flush=True)


def duration(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
