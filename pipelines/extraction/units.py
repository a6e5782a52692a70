"""A unit in; its rows as a part, and the record of what became of it, out. This module does not use Ray."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.human.body import Body
from glot.people.crop_batches import CropBatches
from glot.people.spool import Spool
from glot.people.video import video_frame
from pipelines.decoders.box_variants import jittered
from pipelines.decoders.clips import Clip, Unit
from pipelines.decoders.frames import read_crops
from pipelines.decoders.registry import load_decoder
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.fragments import write_part
from pipelines.extraction.ledger import Record
from pipelines.extraction.occlusion import Occlusion
from pipelines.extraction.reference import round_targets

REPORT_FRAMES = 8  # number of frames between two reports of progress
PIECE_ROWS = 2048  # number of rows that are in memory at once while a part is written


@dataclass(frozen=True)
class SplitJob:
    """One split of a dataset to extract, as workers get it."""

    spec: DatasetSpec
    split: str
    settings: dict[str, Any]  # what the set is made with
    run: str = ""  # names this run of the command
    int8_network: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of the feature set."""
        return self.spec.out / self.spec.dataset / self.split

    @property
    def name(self) -> str:
        return f"{self.spec.dataset} {self.split}"


class Tools(NamedTuple):
    """What a worker needs for every unit."""

    extractor: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    body: Body
    occlusion: Occlusion | None = None
    threads: int = 1  # number of threads that read pictures
    report: Callable[[int, int], None] = lambda frames, skipped: None  # called with numbers of finished frames


def extract_unit(job: SplitJob, unit: Unit, tools: Tools) -> Record:
    """Decodes a unit, runs the network over its crops and writes its part. ``skipped`` lists what cannot be read."""
    sources = list(unit.sources)
    spec = job.spec
    try:
        decoded = load_decoder(spec.dataset, spec.tracks).decode(spec.root, unit, tools.body, spec.preprocessing)
    except InputError as error:
        tools.report(unit.frames, unit.frames)
        skipped = [{"what": unit.annotation, "reason": str(error), "frames": unit.frames}]
        return Record(unit.name, sources, None, skipped=skipped)
    clips, skipped = decoded.clips, list(decoded.skipped)
    if (seed := job.settings["crop"].get("jitter")) is not None:
        clips = [replace(clip, bbox=jittered(clip.bbox, _jitter_rng(seed, clip.track_id))) for clip in clips]
    with Spool([len(clip) for clip in clips], job.settings["backbone"]["feature_size"]) as features:
        reported = 0
        for frames, unread in _fill(features, clips, job, tools):
            if unread:
                add_unread(skipped, *unread)
            if unread or frames - reported >= REPORT_FRAMES:
                tools.report(frames - reported, int(unread is not None))
                reported = frames
        part = write_part(job.folder, unit, _pieces(clips, features, job), dataset=spec.dataset, split=job.split)
        rows = sum(int(there.sum()) for there in features.written)
    tools.report(max(unit.frames - reported, 0), 0)  # frames without a visible person are never read
    return Record(unit.name, sources, part, {**decoded.counts, "rows": rows}, skipped)


def add_unread(skipped: list[dict[str, Any]], image: str, reason: str) -> None:
    """Adds a picture that could not be read. If a video breaks off, one entry counts all pictures after the break."""
    place, last = video_frame(image), skipped[-1] if skipped else None
    if place and last and last["reason"] == reason and last["what"].startswith(f"{place[0]}#"):
        last["frames"] += 1
    else:
        skipped.append({"what": image, "reason": reason, "frames": 1})


def _jitter_rng(seed: int, track: str) -> np.random.Generator:
    """A generator that depends on the seed and the track alone, in every worker."""
    return np.random.default_rng([seed, *hashlib.sha256(track.encode()).digest()])


def _fill(
    features: Spool, clips: Sequence[Clip], job: SplitJob, tools: Tools
) -> Iterator[tuple[int, tuple[str, str] | None]]:
    """Runs the network over all crops.

    Yields after each frame: how many frames were read so far, and (image, reason) if the latest could not be read.
    """
    size, batch_size = job.settings["crop"]["size"], job.spec.batch_size
    alter = tools.occlusion.alter(f"{job.spec.dataset}/{job.split}") if tools.occlusion else None
    batches = CropBatches(tools.extractor, features, batch_size)
    pictures = read_crops(job.spec.root, clips, size=size, alter=alter, threads=tools.threads, ahead=2 * batch_size)
    for frames, frame in enumerate(pictures, 1):
        if frame.crops is None:
            yield frames, (frame.image, frame.reason)
            continue
        for (clip, row), crop in zip(frame.people, frame.crops, strict=True):
            batches.add(clip, row, crop)
        yield frames, None
    batches.finish()


def _pieces(clips: Sequence[Clip], features: Spool, job: SplitJob) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    """The rows that have features, up to PIECE_ROWS at a time, so that the labels of a long video fit into memory."""
    # Evaluation reads the targets of test splits as they are stored, so rows of test splits are not rounded.
    rounded = job.spec.preprocessing == "reference" and not job.split.startswith("test")
    for number, (clip, there) in enumerate(zip(clips, features.written, strict=True)):
        kept = np.flatnonzero(there)
        for start in range(0, len(kept), PIECE_ROWS):
            rows = kept[start : start + PIECE_ROWS]
            piece = clip.take(rows)
            yield round_targets(piece) if rounded else piece, features.take(number, rows)
