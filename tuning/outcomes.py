"""Trials and how they ended. A trial has a folder, and is over when its outcome.json is there."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glot.location import write_json
from tuning.spaces import Value

OUTCOME = "outcome.json"
FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"


@dataclass(frozen=True)
class Attempt:
    """A trial: a point of the space, trained with one seed."""

    number: int  # number of the point, from 0
    point: dict[str, Value]
    seed: int

    def folder(self, out: Path) -> Path:
        """The trial's folder in the folder of the sweep."""
        return out / "trials" / f"{self.number:03d}-seed{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. ``metrics`` are those of its best epoch on the validation split: val_pa_mpjpe and so on."""

    number: int
    point: dict[str, Value]
    seed: int
    outcome: str  # FINISHED | STOPPED | FAILED
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
    write_json(outcome.attempt.folder(out) / OUTCOME, asdict(outcome))
