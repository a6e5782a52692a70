"""Trials and how they ended. A trial has a folder, and is over when its outcome.json is there.

A trial is over when it finished, when a scheduler stopped it, or when it failed because its recipe or its inputs are
wrong: the same trial would fail again. A trial that ended for another reason has no outcome.json, and is tried again.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glot.location import write_json
from tuning.spaces import Value

OUTCOME = "outcome.json"
FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"
OVER = (FINISHED, STOPPED, FAILED)
NOT_NOW, BROKEN = "not now", "program error"  # something outside did not answer; a mistake in this program


@dataclass(frozen=True)
class Attempt:
    """A trial: a point of the space, trained with one seed."""

    number: int  # number of the point, from 0
    point: dict[str, Value]
    seed: int

    @property
    def name(self) -> str:
        """The trial's name in its sweep, and the name of its folder."""
        return f"{self.number:03d}-seed{self.seed}"

    def folder(self, out: Path) -> Path:
        """The trial's folder in the folder of the sweep."""
        return out / "trials" / self.name


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``metrics`` are those of its best epoch on the validation split: val_pa_mpjpe and so on."""

    number: int
    point: dict[str, Value]
    seed: int
    outcome: str  # one of OVER; NOT_NOW and BROKEN are reported, but not stored
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0

    @property
    def attempt(self) -> Attempt:
        """The trial."""
        return Attempt(self.number, self.point, self.seed)


def outcomes(out: Path) -> list[Outcome]:
    """The outcomes of a sweep's trials that are over, in the order of their points."""
    files = sorted((out / "trials").glob(f"*/{OUTCOME}"))
    return [Outcome(**json.loads(file.read_text())) for file in files]


def write_outcome(outcome: Outcome, out: Path) -> None:
    """Writes the outcome into the trial's folder. From then on, the trial is over."""
    assert outcome.outcome in OVER
    folder = outcome.attempt.folder(out)
    folder.mkdir(parents=True, exist_ok=True)  # a trial may fail before it has written anything
    write_json(folder / OUTCOME, asdict(outcome))
