"""What became of the workers in; whether to try again out. A failure has a kind, which follows from its type.

not now    a worker or a node that was lost, a disk, a store: tried again from the last checkpoint
ours       everything else that a worker raised; it would come again, so it is raised at once, with the worker's trace
"""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from glot.errors import InputError, NotNowError, is_passing
from glot.retries import packages_of
from glot.training.step_checkpoints import newest_step

TRIES = 3  # a run is given up after this many failures in a row without a new checkpoint
PAUSE_SECONDS = 5.0  # before a second try where something outside does not answer; twice as long before the third
REASON_LENGTH = 160  # characters of the reason of a failure
# Where the errors of torch's CPU collectives come from. They are RuntimeErrors that begin with the file of the source.
GLOO = "third_party/gloo/"


class Tries:
    """Counts the failures in a row of the run in a folder. A new checkpoint starts the count again."""

    def __init__(self, out: Path) -> None:
        self._out, self._left, self._step = out, TRIES, newest_step(out)

    def failed(self, error: Exception) -> str:
        """Why the workers ended, in one line, if they are to be started again. May wait for what did not answer.

        ``error``: from Ray Train, or from a worker in this process. Raises the error of a worker that would come again,
        and NotNowError after too many failures.
        """
        cause = decisive(causes_of(error))
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:REASON_LENGTH]
        outside = isinstance(cause, NotNowError | OSError)
        if not outside:
            reason = f"a worker was lost ({reason})"
        step = newest_step(self._out)
        self._left = TRIES if step != self._step else self._left - 1
        self._step = step
        if not self._left:
            raise NotNowError(
                f"{self._out}: {TRIES} tries in a row failed: {reason}; the same command with --resume continues after "
                f"step {step}"
            ) from None
        if outside:
            time.sleep(PAUSE_SECONDS * (TRIES - self._left))
        return reason


def causes_of(error: Exception) -> list[BaseException]:
    """What the workers raised, or what became of them."""
    failures: Sequence[BaseException] = list(getattr(error, "worker_failures", {}).values())
    failures = failures or [getattr(error, "controller_failure", error)]
    return [getattr(failure, "_base_exc", failure) for failure in failures]  # versions of Ray wrap what a worker raised


def decisive(causes: Sequence[BaseException]) -> BaseException:
    """The failure that may pass, of several at the same time. Raises the one that would come again, if there is one.

    When a worker is lost, the others fail as well: theirs are not looked at.
    """
    for cause in causes:
        if isinstance(cause, torch.OutOfMemoryError):
            raise InputError(
                f"the GPU's memory is too small ({str(cause).splitlines()[0][:REASON_LENGTH]}); set a larger "
                "accumulate, or take more GPUs"
            ) from None
        if isinstance(cause, InputError):
            raise cause from None
    lost = [cause for cause in causes if "ray" in packages_of(cause)]
    if lost:
        return lost[0]
    for cause in causes:
        if not may_pass(cause):
            raise cause from None
    return causes[0]


def may_pass(cause: BaseException) -> bool:
    """Whether another try may succeed: not now, a disk, or a collective whose other side is gone."""
    if isinstance(cause, OSError):
        return is_passing(cause)
    collective = isinstance(cause, torch.distributed.DistError) or GLOO in str(cause)
    return isinstance(cause, NotNowError) or collective
