"""The outcome logs of all splits of a job, as its books keep them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from glot.location import is_remote
from pipelines.jobs.bookkeeper import Result
from pipelines.sets.outcomes import FOLDER, OutcomeLog, log_entries
from pipelines.sets.settings import RECORDS, list_set

STORE_SECONDS, DISK_SECONDS = 10.0, 1.0  # shortest time between two writes


def key_of(split: str, id: str) -> str:
    """The key of a unit in the job's books."""
    return f"{split} {id}"


def id_of(key: str) -> str:
    """The id of a unit in its plan, from its key. (Names of splits have no space.)"""
    return key.partition(" ")[2]


class OutcomeLogs:
    """Appends the outcomes of units, the values of results, to the logs of their splits."""

    def __init__(self, folders: Mapping[str, Path], run: str) -> None:
        self.folders, self.run = dict(folders), run
        self.logs: dict[str, OutcomeLog] = {}
        self.pause = STORE_SECONDS if any(map(is_remote, folders.values())) else DISK_SECONDS

    def read(self) -> dict[str, tuple[str, int, int]]:
        """{key: (kind, frames, skipped)} of the units that have ended in this run."""
        found = {}
        for split, folder in self.folders.items():
            start = f"{RECORDS}/{FOLDER}/{self.run}-"
            files = {name: size for name, size in list_set(folder).items() if name.startswith(start)}
            for _, outcome in log_entries(folder, files):
                skipped = sum(entry["frames"] for entry in outcome.skipped)
                found[key_of(split, outcome.id)] = (outcome.kind, outcome.frames, skipped)
        return found

    def append(self, results: Sequence[Result]) -> None:
        """Appends the outcomes. If it fails, all of them may be appended again."""
        for split, folder in self.folders.items():
            outcomes = [result.value for result in results if result.key.startswith(f"{split} ")]
            if outcomes:
                if split not in self.logs:
                    self.logs[split] = OutcomeLog(folder, self.run)
                self.logs[split].append(outcomes)
