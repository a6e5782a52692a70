"""A video in, a folder with everybody's body out: motions as files, a film of them over the video, stills, a summary.

The video is read four times from beginning to end, one picture in memory: to find people, to look at their landmarks,
to crop them for the backbone, to draw them. The folder appears when it is whole.
"""

import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from glot.capture.reconstruction import FITS, Reconstruction
from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.blazepose import Landmarks
from glot.features.backbones.extractor import Extractor
from glot.features.schema import Manifest
from glot.human.body import Body, load_body, require_body
from glot.human.crop import DEFAULT_CROP_SCALE, crop_image
from glot.location import temporary_of, write_whole
from glot.models.checkpoint import Checkpoint
from glot.models.inference import checkpoint_path, load_model_for
from glot.motion.bvh import write_bvh
from glot.motion.gltf import write_gltf
from glot.motion.motion_files import StoredMotion, read_motion, write_motion, write_peers_pkl
from glot.motion.person_motion import Motion, joined
from glot.people.detection import Find, load_detector
from glot.people.footage import Footage, Person, detected, given, looked_at, spool_for
from glot.people.spool import Spool
from glot.people.track_files import read_tracks
from glot.people.video import VIDEOS, Timeline
from glot.pictures.drawing import Picture, write_video
from glot.pictures.film import film
from glot.pictures.person_sheet import moments, sheet

SUMMARY = "summary.json"
BODIES, NOBODY = "bodies", "nobody"  # outcomes
CROPS_AT_ONCE = 8


@dataclass(frozen=True)
class Options:
    """What the user chose; results in a folder are of one choice."""

    checkpoint: Path = Path("open")
    body: Path | None = None
    backbone: str = "blazepose"
    weights: Path | None = None
    detector_weights: Path | None = None
    tiles: int = 0
    tracks: Path | None = None
    fit: str = "limbs"
    focal: float | None = None  # px
    smooth: bool = False
    pkl: bool = False
    bvh: bool = False
    gltf: bool = False
    film: bool = True


class Studio:
    """The networks and the body, loaded once for all videos. InputError where they do not suit each other."""

    def __init__(self, options: Options) -> None:
        if options.fit not in FITS:
            raise InputError(f"--fit {options.fit}: there is {', '.join(FITS)}")
        if options.tracks is not None and not options.tracks.exists():
            raise InputError(f"--tracks {options.tracks}: there is no such file or folder")
        if options.focal is not None and options.focal <= 0:
            raise InputError(f"--focal {options.focal:g}: is in px and over 0")
        self.options = options
        self.backbone: Backbone = load_backbone(options.backbone, options.weights)
        self.checkpoint: Checkpoint = load_model_for(options.checkpoint, self._manifest())
        self.body: Body = load_body(options.body)
        require_body(self.body, self.checkpoint.info["body"], "model")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.checkpoint.model.to(self.device)
        self.settings = self._settings()

    # Loaded when they are first needed: with --tracks nobody is looked for.
    @cached_property
    def find(self) -> Find:
        return load_detector(self.options.detector_weights, tiles=self.options.tiles)

    @cached_property
    def landmarks(self) -> Landmarks:
        return Landmarks()

    @cached_property
    def extractor(self) -> Extractor:
        return Extractor(self.backbone, device=self.device)

    def reconstruction(self, line: Timeline) -> Reconstruction:
        """How features become bodies in a video of that timeline."""
        chosen = self.options
        return Reconstruction(
            self.checkpoint.model, self.body, line, fit=chosen.fit, smooth=chosen.smooth, focal=chosen.focal
        )

    def _manifest(self) -> Manifest:
        """What a feature set of these features would say."""
        backbone = {
            "name": self.backbone.name,
            "weights": self.backbone.weights_name,
            "hash": self.backbone.hash,
            "feature_size": self.backbone.feature_size,
        }
        return Manifest("video", "test", 0, 0, backbone, crop={}, body={}, parts=[])

    def _settings(self) -> dict[str, Any]:
        """What results depend on, for the summary and to notice a change."""
        checkpoint = checkpoint_path(self.options.checkpoint, self.backbone.name)
        chosen = {
            name: _named(value) if isinstance(value := getattr(self.options, name), Path) else value
            for name in (field.name for field in fields(self.options))
        }
        weights = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
        return chosen | {
            "checkpoint": {"name": checkpoint.name, "hash": _hash(weights)},
            "backbone": self._manifest().backbone,
            "body": {"name": self.body.name, "hash": self.body.file_hash},
        }


def find_videos(root: Path) -> dict[str, Path]:
    """The videos of a folder at any depth, or the one file: name of the result folder -> video.

    A name is the path without its ending; with it, where two differ in nothing else.
    """
    if not root.exists():
        raise InputError(f"{root}: there is no such video or folder")
    if root.is_file():
        if root.suffix.lower() not in VIDEOS:
            raise InputError(f"{root}: not a kind of video known here ({', '.join(VIDEOS)})")
        return {root.stem: root}
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS and path.is_file())
    if not files:
        raise InputError(f"{root}: no videos in it ({', '.join(VIDEOS)})")
    short = [path.relative_to(root).with_suffix("").as_posix() for path in files]
    return {
        name if short.count(name) == 1 else path.relative_to(root).as_posix(): path
        for name, path in zip(short, files, strict=True)
    }


def name_below(root: Path, video: Path) -> str:
    """What a file of tracks may call a video: its path below the root, or its name."""
    return video.name if root.is_file() else video.relative_to(root).as_posix()


def check_tracks(videos: dict[str, Path], options: Options) -> None:
    """InputError if --tracks is a file of one video, and there are several."""
    tracks = options.tracks
    if tracks is not None and tracks.is_file() and tracks.suffix.lower() != ".json" and len(videos) > 1:
        raise InputError(f"--tracks {tracks}: is of one video, but there are {len(videos)}; give a folder")


def in_words(summary: dict[str, Any]) -> str:
    """What became of a video, in a line."""
    count, frames = len(summary["people"]), summary["frames"]
    said = f"{count} {'person' if count == 1 else 'people'}" if count else "nobody found"
    said += f" in {frames} {'frame' if frames == 1 else 'frames'}"
    if summary["left_out"]:
        said += f", {len(summary['left_out'])} short or doubtful ones left out (summary.json)"
    return said + (f"; {summary['damage']}" if summary["damage"] else "")


def done_before(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of a finished folder, None where there is none. InputError if it was made with other settings."""
    path = folder / SUMMARY
    if not folder.exists():
        return None
    try:
        summary = json.loads(path.read_text())
        before = summary["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: is there and no result of this command; choose another --out") from None
    if before != json.loads(json.dumps(settings)):
        other = [name for name in settings if before.get(name) != json.loads(json.dumps(settings[name]))]
        raise InputError(f"{folder}: was made with another {', '.join(other)}; choose another --out, or remove it")
    return dict(summary)


def capture(video: Path, folder: Path, studio: Studio, *, named: str = "") -> dict[str, Any]:
    """Does one video; returns what summary.json says. ``named`` is what --tracks may call it, else the file's name.

    ``outcome`` is "bodies", or "nobody" where no person was found: then the summary is all there is. InputError where
    not one picture can be read; a video that is damaged further on is done as far as it goes, and ``damage`` says so.
    """
    start = time.monotonic()
    footage = Footage(video)
    options = studio.options
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        seconds[stage] = round(time.monotonic() - begun, 1)

    with timed("people"):
        if options.tracks is None:
            tracks, short = detected(footage, studio.find)
        else:
            tracks, short = given(footage, read_tracks(named or video.name, options.tracks))
    with spool_for(tracks) as landmarks, _appears(folder) as unfinished:
        with timed("landmarks"):
            people, others = looked_at(footage, tracks, studio.landmarks, landmarks)
        files: list[str] = []
        if people:
            with Spool([len(person) for person in people], studio.backbone.feature_size) as features:
                with timed("features"):
                    extract(footage, people, studio, features)
                with timed("bodies"):
                    make = studio.reconstruction(footage.timeline)
                    for number, person in enumerate(people):
                        pieces = make(person, partial(features.take, number))
                        files += write_person(unfinished, pieces, person)
            with timed("files"):
                files += write_for_others(unfinished, people, studio)
            with timed("film"):
                files += draw(unfinished, footage, people, studio)
        line = footage.timeline
        summary = {
            "video": video.name,
            "outcome": BODIES if people else NOBODY,
            "frames": footage.frames,
            "damage": footage.damage,
            "fps": line.fps,
            "even_rate": line.even,
            "width": line.width,
            "height": line.height,
            "people": [_about(person) for person in people],
            "left_out": [one._asdict() for one in (*short, *others)],
            "files": files,
            "seconds": {**seconds, "all": round(time.monotonic() - start, 1)},
            "settings": studio.settings,
        }
        write_whole(unfinished / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def extract(footage: Footage, people: list[Person], studio: Studio, features: Spool) -> None:
    """The backbone's features of everybody at every frame, into the spool."""
    crops: list[NDArray[np.uint8]] = []
    places: list[tuple[int, int]] = []

    def forward() -> None:
        for (number, row), feature in zip(places, studio.extractor(np.stack(crops)), strict=True):
            features.put(number, row, feature)
        crops.clear()
        places.clear()

    for frame, picture in enumerate(footage.pictures("features")):
        for number, person in enumerate(people):
            row = frame - int(person.frames[0])
            if 0 <= row < len(person):
                size = studio.backbone.crop_size
                crops.append(crop_image(picture, person.bbox[row], DEFAULT_CROP_SCALE, size=size))
                places.append((number, row))
                if len(crops) == CROPS_AT_ONCE:
                    forward()
    if crops:
        forward()


def write_person(folder: Path, pieces: Iterator[Motion], person: Person) -> list[str]:
    """The motion files of one person; their names."""
    paths = [folder / f"{_file_name(person.name)}{suffix}" for suffix in (".npz", ".parquet")]
    write_motion(pieces, *paths)
    return [path.name for path in paths]


def write_for_others(folder: Path, people: list[Person], studio: Studio) -> list[str]:
    """What other programs read, of formats that are made from a person's whole motion; the files' names."""
    options, names = studio.options, []
    paths = [folder / f"{_file_name(person.name)}.npz" for person in people]
    if options.bvh:
        for path in paths:
            write_bvh(path.with_suffix(".bvh"), read_motion(path), studio.body)
            names.append(path.with_suffix(".bvh").name)
    if options.pkl or options.gltf:
        everybody = [read_motion(path) for path in paths]
        if options.pkl:
            write_peers_pkl(folder / "people.pkl", everybody, studio.body)
            names.append("people.pkl")
        if options.gltf:
            write_gltf(folder / "people.glb", everybody, studio.body)
            names.append("people.glb")
    return names


def draw(folder: Path, footage: Footage, people: list[Person], studio: Studio) -> list[str]:
    """The film and a still of each person; their names."""
    files = [(range(int(p.frames[0]), int(p.frames[-1]) + 1), folder / f"{_file_name(p.name)}.parquet") for p in people]
    stills = _Stills(files, studio.body)
    pictures = stills.passing(enumerate(footage.pictures("drawing")))
    if studio.options.film:
        frames = film(pictures, files, studio.body)
        write_video(folder / "overlay.mp4", frames, fps=footage.timeline.fps)
    else:
        for _ in pictures:
            pass
    return [path.with_suffix(".png").name for _, path in files] + ["overlay.mp4"] * studio.options.film


class _Stills:
    """Draws each person's sheet as soon as the last of its pictures has come by."""

    def __init__(self, files: list[tuple[range, Path]], body: Body) -> None:
        self.files, self.body = files, body

    def passing(self, pictures: Iterator[tuple[int, NDArray[np.uint8]]]) -> Iterator[tuple[int, Picture]]:
        """BGR in, the same pictures as RGB out."""
        waiting: dict[int, tuple[Motion, dict[int, Picture]]] = {}
        for frame, picture in pictures:
            rgb: Picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
            for number, (there, path) in enumerate(self.files):
                if frame == there[0]:
                    shown = _shown(path)
                    waiting[number] = (shown, dict.fromkeys(shown.frames.tolist(), rgb))
                if number in waiting:
                    shown, kept = waiting[number]
                    if frame in kept:
                        kept[frame] = rgb
                    if frame == there[-1]:
                        drawn = cv2.cvtColor(sheet(shown, self.body, kept, frames=len(there)), cv2.COLOR_RGB2BGR)
                        path.with_suffix(".png").write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
                        del waiting[number]
            yield frame, rgb


def _shown(path: Path) -> Motion:
    """The rows of a motion that its sheet shows."""
    motion = StoredMotion(path)
    shown = joined([motion.rows(row, row + 1) for row in moments(len(motion)).tolist()])
    motion.close()
    return shown


@contextmanager
def _appears(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name when it is whole. What killed processes left of it is cleared."""
    unfinished = temporary_of(folder)
    here = unfinished.name.removesuffix(str(os.getpid()))  # of this machine, any process
    for old in folder.parent.glob(f"{glob.escape(here)}*"):
        if not _alive(old.name.removeprefix(here)):
            shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _alive(process: str) -> bool:
    return process != str(os.getpid()) and process.isdecimal() and Path(f"/proc/{process}").exists()


def _about(person: Person) -> dict[str, Any]:
    return {
        "person": person.name,
        "first": int(person.frames[0]),
        "last": int(person.frames[-1]),
        "frames": len(person),
        "seen": int(person.seen.sum()),
        "score": round(float(person.scores[person.seen].mean()), 3),
    }


def _file_name(person: str) -> str:
    return f"person-{''.join(letter if letter.isalnum() or letter in '-_' else '_' for letter in person)}"


def _named(path: Path) -> dict[str, str]:
    """A chosen file by name and content; a folder by its name."""
    return {"name": path.name} | ({"hash": _hash(path)} if path.is_file() else {})


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
