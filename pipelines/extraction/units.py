"""A unit in; its rows as a fragment, and the outcome, out. This module does not use Ray."""

import hashlib
import io
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError, is_passing
from glot.human.crop_rules import CropRule
from glot.location import is_remote, write_whole
from glot.people.crop_batches import CropBatches
from glot.people.spool import Spool
from glot.people.video import Cut, video_frame
from glot.retries import ChangedError
from pipelines.decoders.box_variants import jittered
from pipelines.decoders.clips import Clip, Decoded, Unit, of_range
from pipelines.decoders.frames import Frame, read_crops, with_rule
from pipelines.decoders.registry import load_decoder
from pipelines.decoders.source_entries import changed_source
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.occlusion import Occlusion
from pipelines.extraction.reference import round_targets
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets.fragments import fragment_path, write_fragment
from pipelines.sets.outcomes import Outcome
from pipelines.sets.settings import RECORDS, read_file

if TYPE_CHECKING:
    from glot.human.body import Body

PIECE_ROWS = 2048  # number of rows that are in memory at once while a fragment is written
STARTED = "started"  # folder in RECORDS: features of units whose workers had to leave


@dataclass(frozen=True)
class SplitJob:
    """One split of a dataset to extract, as workers get it."""

    spec: DatasetSpec
    split: str
    settings: dict[str, Any]  # what the set is made with
    run: str = ""  # names this run of the command
    code: str = ""  # version of the code
    int8_network: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of the feature set."""
        return self.spec.out / self.spec.dataset / self.split

    @property
    def name(self) -> str:
        return f"{self.spec.dataset} {self.split}"

    @property
    def dtype(self) -> str:
        """How features are kept: float32 or float16."""
        return str(self.settings["backbone"].get("dtype", "float32"))

    @property
    def rule(self) -> CropRule:
        """How people are cropped."""
        crop = self.settings["crop"]
        return CropRule.from_dict(crop["cut"]) if "cut" in crop else CropRule(size=crop["size"])

    @property
    def feature_size(self) -> int:
        return int(self.settings["backbone"]["feature_size"])

    @property
    def values(self) -> int:
        """How many numbers the network gives for a crop: the feature, and those of a first guess."""
        return self.feature_size + int(self.settings["backbone"].get("guess_size", 0))


class Tools(NamedTuple):
    """What a worker needs for every unit."""

    extractor: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    body: "Body"
    occlusion: Occlusion | None = None
    threads: int = 1  # number of threads that read pictures
    progress: Callable[[int], None] = lambda frames: None  # called with the number of frames that are done
    check_stay: Callable[[], None] = lambda: None  # raises an exception if this worker has to leave


def extract_unit(job: SplitJob, id: str, unit: Unit, tools: Tools) -> Outcome:
    """Decodes a unit, runs the network over its crops and writes its rows. ``id`` is the unit's in the plan.

    If the worker has to leave, the features so far are kept for the next worker, which gives the same rows. InputError
    if the unit is damaged; NotNowError or OSError if it cannot be read now.
    """
    with OpenUnit(job, id, unit, tools) as opened:
        batches = CropBatches(tools.extractor, opened.features, job.spec.batch_size)
        for frames, frame in enumerate(opened.frames(tools.threads), 1):
            for (clip, row), crop in zip(frame.people, frame.crops or (), strict=True):
                batches.add(clip, row, crop)
            tools.progress(frames)
            try:
                tools.check_stay()
            except BaseException:
                opened.keep_features()
                raise
        batches.finish()
        return opened.finish()


def read_through(job: SplitJob, unit: Unit) -> None:
    """Reads all that extraction reads of a unit, without a network: for units that may crash the process."""
    from glot.human.body import load_body

    with OpenUnit(job, "", unit, Tools(_nothing, load_body(job.spec.body))) as opened:
        for _ in opened.frames(threads=1):
            pass


def _nothing(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    raise AssertionError("no network runs")


class OpenUnit:
    """A unit while it is extracted: its clips, and the spool of their features."""

    def __init__(self, job: SplitJob, id: str, unit: Unit, tools: Tools) -> None:
        self.job, self.id, self.unit, self.tools = job, id, unit, tools
        try:
            self.decoded = _decoded(job, unit, tools.body)
        except (InputError, OSError) as error:  # a file that is replaced or goes away is no damage
            self._check_sources()
            if isinstance(error, OSError) and not is_passing(error):
                raise InputError(str(error)) from error
            raise
        self.clips = self.decoded.clips
        self.skipped = list(self.decoded.skipped)
        self.features = Spool([len(clip) for clip in self.clips], job.values)
        self._take_kept_features()

    def __enter__(self) -> "OpenUnit":
        return self

    def __exit__(self, *_: object) -> None:
        self.features.__exit__()

    def frames(self, threads: int, ahead: int | None = None) -> Generator[Frame, None, None]:
        """The pictures in time order with the crops of their people, without people whose features are there already.

        A picture that cannot be read has no crops, and is noted. ``ahead`` pictures are read before they are asked for;
        by default, as many as two batches need.
        """
        job, occlusion = self.job, self.tools.occlusion
        alter = occlusion.alter(f"{job.spec.dataset}/{job.split}") if occlusion else None
        time = self.unit.facts.get("time")
        starts = {} if time is None else {self.unit.images: Cut(self.unit.start, time)}
        there = [written.copy() for written in self.features.written]
        ahead = 2 * job.spec.batch_size if ahead is None else ahead
        for frame in read_crops(
            job.spec.root, self.clips, rule=job.rule, alter=alter, threads=threads, ahead=ahead, starts=starts,
            entries={str(entry["path"]): entry for entry in self.unit.sources},
        ):  # fmt: skip
            if frame.crops is None:
                add_unread(self.skipped, frame.image, frame.reason)
                yield frame._replace(people=[])
                continue
            new = [number for number, (clip, row) in enumerate(frame.people) if not there[clip][row]]
            yield frame._replace(
                people=[frame.people[number] for number in new], crops=[frame.crops[number] for number in new]
            )

    def finish(self) -> Outcome:
        """Writes the fragment; all features are in the spool."""
        self._check_sources()
        job = self.job
        pieces = self._pieces()
        fragment = write_fragment(
            fragment_path(job.folder, self.id),
            pieces,
            dataset=job.spec.dataset,
            split=job.split,
            dtype=job.dtype,
            with_guess=job.values > job.feature_size,
        )
        if self.was_kept:
            _kept(job.folder, self.id).unlink(missing_ok=True)
        rows = sum(int(there.sum()) for there in self.features.written)
        counts = {**self.decoded.counts, "rows": rows}
        return Outcome(self.id, DONE, fragment, counts, self.skipped, self.unit.frames, job.code)

    def keep_features(self) -> None:
        """Keeps the features so far beside the fragments. Whole batches only, so that no number changes later."""
        content = io.BytesIO()
        rows = [np.flatnonzero(there) for there in self.features.written]
        features = [self.features.take(number, kept) for number, kept in enumerate(rows)]
        if not sum(map(len, rows)):
            return
        lengths = np.array([len(kept) for kept in rows])
        np.savez(content, features=np.concatenate(features), rows=np.concatenate(rows), lengths=lengths)
        path = _kept(self.job.folder, self.id)
        if not is_remote(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())

    def _take_kept_features(self) -> None:
        self.was_kept = False
        if not self.id:
            return
        try:
            content = read_file(_kept(self.job.folder, self.id))
            self.was_kept = True
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                features, rows, lengths = kept["features"], kept["rows"], kept["lengths"]
        except (FileNotFoundError, ValueError, KeyError):
            return
        stops = np.cumsum(lengths)
        if len(lengths) != len(self.clips) or features.shape[1] != self.features.size:
            return
        for number, stop in enumerate(stops):
            start = stop - lengths[number]
            for row, values in zip(rows[start:stop], features[start:stop], strict=True):
                self.features.put(number, int(row), values)

    def _check_sources(self) -> None:
        """ChangedError if a file of the unit has changed since it was planned: the next run takes it as it is then."""
        if changed := changed_source(self.job.spec.root, self.unit):
            raise ChangedError(f"{changed}: changed while it was extracted; is it still being written?")

    def _pieces(self) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
        """The rows that have features, up to PIECE_ROWS at a time, so that labels of a long unit fit into memory."""
        # Evaluation reads the targets of test splits as they are stored, so rows of test splits are not rounded.
        rounded = self.job.spec.preprocessing == "reference" and not self.job.split.startswith("test")
        for number, (clip, there) in enumerate(zip(self.clips, self.features.written, strict=True)):
            kept = np.flatnonzero(there)
            for start in range(0, len(kept), PIECE_ROWS):
                rows = kept[start : start + PIECE_ROWS]
                piece = clip.take(rows)
                yield round_targets(piece) if rounded else piece, self.features.take(number, rows)


def add_unread(skipped: list[dict[str, Any]], image: str, reason: str) -> None:
    """Adds a picture that could not be read. If a video breaks off, one entry counts all pictures after the break."""
    place, last = video_frame(image), skipped[-1] if skipped else None
    if place and last and last["reason"] == reason and last["what"].startswith(f"{place[0]}#"):
        last["frames"] += 1
    else:
        skipped.append({"what": image, "reason": reason, "frames": 1})


def _decoded(job: SplitJob, unit: Unit, body: "Body") -> Decoded:
    """What is in the range of the unit. Boxes are jittered over whole tracks; of a video, over the range."""
    spec = job.spec
    decoder = load_decoder(spec.dataset, spec.tracks)
    decoded = decoder.decode(spec.root, unit, body, spec.preprocessing)
    ruled = [with_rule(clip, job.rule, is_cropped=decoder.is_cropped) for clip in decoded.clips]
    decoded = replace(decoded, clips=ruled)
    if (seed := job.settings["crop"].get("jitter")) is not None:
        start = unit.start if decoder.cut is not None else 0
        clips = [
            replace(clip, bbox=jittered(clip.bbox, _jitter_rng(seed, clip.track_id, start))) for clip in decoded.clips
        ]
        decoded = replace(decoded, clips=clips)
    return decoded if decoder.cut is not None else of_range(unit, decoded)


def _jitter_rng(seed: int, track: str, start: int) -> np.random.Generator:
    """A generator that depends on the seed, the track and the start of the range alone, in every worker."""
    place = [start] if start else []
    return np.random.default_rng([seed, *hashlib.sha256(track.encode()).digest(), *place])


def _kept(folder: Path, id: str) -> Path:
    """Where the features of a unit are kept whose worker had to leave."""
    return folder / RECORDS / STARTED / fragment_path(folder, id).with_suffix(".npz").name
