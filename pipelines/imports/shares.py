"""The tracks of a feature file in, shares of them out: each becomes a part of the set, and is imported as a whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from glot.features.schema import Manifest
from pipelines.imports.feature_dbs import TrackRows
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.manifest_entries import PlanUnit
from pipelines.sets.outcomes import Outcome, read_outcomes
from pipelines.sets.packed import Packed, read_packed, write_packed
from pipelines.sets.packing import pack_part
from pipelines.sets.publishing import publish
from pipelines.sets.settings import list_set

UNUSABLE = "0000/unusable"  # id of the unit that stands for what is in no share
PART_ROWS = 16_384  # a part ends with the track that reaches this number of rows: about 130 MB


class Share(NamedTuple):
    """The tracks of one part. They follow each other in the file, and no track is in two parts."""

    tracks: tuple[TrackRows, ...]

    @property
    def start(self) -> int:
        return self.tracks[0].start

    @property
    def rows(self) -> int:
        """Number of rows in the file."""
        return self.tracks[-1].stop - self.start

    @property
    def id(self) -> str:
        """Names the unit in the outcomes of a set. Shares that begin or end elsewhere have other ids."""
        return share_id(self.start, self.start + self.rows)

    @property
    def part(self) -> str:
        """Name of the part; parts of shares that do not overlap have different names."""
        return f"part-{self.start:09d}.parquet"


def share_id(start: int, stop: int) -> str:
    """The id of the share with the rows [start, stop) of the file."""
    return f"0000/{start:09d}-{stop:09d}"


def share_out(tracks: Sequence[TrackRows]) -> list[Share]:
    """The shares in the order of the file. Each gets whole tracks until it has at least PART_ROWS rows."""
    shares: list[list[TrackRows]] = []
    rows = PART_ROWS
    for track in tracks:
        if rows >= PART_ROWS:
            shares.append([])
            rows = 0
        shares[-1].append(track)
        rows += track.stop - track.start
    return [Share(tuple(share)) for share in shares]


def finished_shares(folder: Path, shares: Sequence[Share]) -> dict[str, Outcome]:
    """The outcomes of the shares that are imported, by id. Those whose part is gone or has another size are not."""
    files = list_set(folder)
    return _finished(shares, read_outcomes(folder, files), files)


def publish_shares(
    folder: Path,
    settings: dict[str, Any],
    shares: Sequence[Share],
    source: dict[str, Any],
    *,
    unusable: list[dict[str, Any]],
    if_empty: str,
) -> Manifest:
    """Writes the manifest of a set whose shares are all imported; ``if_empty`` as in ``publish``.

    ``source`` = {path, bytes, ...} is the file. What was counted in the shares is added to it. ``unusable``: {what,
    reason, frames} of things in it that are in no share.
    """
    # Shares are written as parts at once, since a second copy of a large file would take as much disk and time again.
    files = list_set(folder)
    outcomes = read_outcomes(folder, files)
    parts = [
        {**outcome.fragment, "units": [[outcome.id, outcome.rows, outcome.fragment["bytes"]]], "split": {}}
        for outcome in _finished(shares, outcomes, files).values()
        if outcome.fragment
    ]
    packed = Packed.of(0, parts)
    if packed != read_packed(folder, files):
        write_packed(folder, packed)
    name = source["path"]
    units = [PlanUnit(share.id, name, name, [source], share.rows) for share in shares]
    if unusable:
        units.append(PlanUnit(UNUSABLE, name, name, [source], 0))
        outcomes = {**outcomes, UNUSABLE: Outcome(UNUSABLE, DONE, None, {}, unusable, 0)}
    return publish(
        folder,
        settings,
        units,
        outcomes,
        run=lambda tasks: [pack_part(folder, task) for task in tasks],
        if_empty=if_empty,
        files=files,
        packed=packed,
    )


def _finished(shares: Sequence[Share], outcomes: Mapping[str, Outcome], files: Mapping[str, int]) -> dict[str, Outcome]:
    found = [outcomes[share.id] for share in shares if share.id in outcomes]
    return {outcome.id: outcome for outcome in found if outcome.kind == DONE and _is_there(outcome, files)}


def _is_there(outcome: Outcome, files: Mapping[str, int]) -> bool:
    part = outcome.fragment
    return part is None or files.get(part["name"]) == part["bytes"]
