"""A video in; a folder with the bodies of all its people out: motions as files, a film, stills, a summary.

The video is read four times from beginning to end, with one picture in memory: to find people, to find their
landmarks, to crop them for the backbone, and to draw them. The folder appears when it is complete.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from glot.capture.reconstruction import crop_scales
from glot.capture.result_files import write_exports, write_person
from glot.capture.result_folder import BODIES, NOBODY, atomic_folder, write_summary
from glot.capture.result_pictures import draw
from glot.capture.studio import Studio
from glot.people.crop_batches import CropBatches
from glot.people.footage import Footage
from glot.people.landmarks import Person, find_landmarks, spool_for
from glot.people.spool import Spool
from glot.people.track_files import read_tracks
from glot.people.tracks import LeftOut, Track, detect_tracks, tracks_of_boxes

CROPS_AT_ONCE = 8


class Clock:
    """Measures the stages of the work: ``seconds`` of each stage, by name."""

    def __init__(self) -> None:
        self.start, self.seconds = time.monotonic(), dict[str, float]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 1)

    def total(self) -> float:
        return round(time.monotonic() - self.start, 1)


def capture(video: Path, folder: Path, studio: Studio, *, name_in_tracks: str = "") -> dict[str, Any]:
    """Reconstructs the people of one video; returns the summary.

    ``name_in_tracks`` is the video's name in the files of --tracks; by default it is the file's name. ``outcome`` in
    the summary is "bodies", or "nobody" if no person was found; then the folder holds only the summary. InputError if
    no picture can be read. If the video is damaged later, the part before the damage is used, and ``damage`` in the
    summary describes it.
    """
    clock, footage = Clock(), Footage(video)
    with clock.stage("people"):
        tracks, short = _tracks(footage, studio, name_in_tracks or video.name)
    with spool_for(tracks) as landmarks, atomic_folder(folder) as unfinished:
        with clock.stage("landmarks"):
            people, doubtful = find_landmarks(footage, tracks, studio.landmarks, landmarks)
        files = _write_results(unfinished, footage, people, studio, clock) if people else []
        timeline = footage.timeline
        summary = {
            "video": video.name,
            "outcome": BODIES if people else NOBODY,
            "frames": footage.frames,
            "damage": footage.damage,
            "fps": timeline.fps,
            "even_rate": timeline.even,
            "width": timeline.width,
            "height": timeline.height,
            "people": [_describe(person) for person in people],
            "left_out": [track._asdict() for track in (*short, *doubtful)],
            "files": files,
            "seconds": {**clock.seconds, "all": clock.total()},
            "settings": studio.settings,
        }
        write_summary(unfinished, summary)
    return summary


def extract(footage: Footage, people: list[Person], studio: Studio, features: Spool) -> None:
    """Puts the backbone's features of all people at all their frames into the spool."""
    rule = studio.backbone.crop_rule
    batches = CropBatches(studio.extractor, features, CROPS_AT_ONCE)
    scales = [crop_scales(person, rule) for person in people]
    for frame, picture in enumerate(footage.pictures("features")):
        for number, person in enumerate(people):
            row = frame - int(person.frames[0])
            if 0 <= row < len(person):
                batches.add(number, row, rule.cut(picture, person.bbox[row], scales[number][row]))
    batches.finish()


def _tracks(footage: Footage, studio: Studio, name_in_tracks: str) -> tuple[list[Track], list[LeftOut]]:
    """The tracks from the detector or from --tracks, and the tracks that are too short."""
    if studio.options.tracks is None:
        return detect_tracks(footage, studio.detector)
    boxes = read_tracks(name_in_tracks, studio.options.tracks)
    if boxes.left_out:
        print(
            f"{name_in_tracks}: {boxes.left_out} boxes are no pedestrians by MOT's flag and class, left out", flush=True
        )
    return tracks_of_boxes(footage, boxes.people)


def _write_results(folder: Path, footage: Footage, people: list[Person], studio: Studio, clock: Clock) -> list[str]:
    """Reconstructs the people and writes their files; returns the files' names."""
    files: list[str] = []
    with Spool([len(person) for person in people], studio.backbone.feature_size) as features:
        with clock.stage("features"):
            extract(footage, people, studio, features)
        with clock.stage("bodies"):
            reconstruct = studio.reconstruction(footage.timeline)
            for number, person in enumerate(people):
                pieces = reconstruct(person, partial(features.take, number))
                files += write_person(folder, pieces, person)
    with clock.stage("files"):
        files += write_exports(folder, people, studio.options, studio.body)
    with clock.stage("film"):
        files += draw(folder, footage, people, studio.body, with_film=studio.options.film)
    return files


def _describe(person: Person) -> dict[str, Any]:
    return {
        "person": person.name,
        "first": int(person.frames[0]),
        "last": int(person.frames[-1]),
        "frames": len(person),
        "seen": int(person.seen.sum()),
        "score": round(float(person.scores[person.seen].mean()), 3),
    }
