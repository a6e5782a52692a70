"""Motions and the open body in, a small synthetic video dataset in the genuine 3DPW layout out.

Each sequence is rendered by one process under a temporary name, then renamed; its .pkl comes last, and sample.json
after all of them. So whatever is there is whole, and running again goes on where it stopped.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import MISSING, asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from scipy.spatial.transform import Rotation

from glot import cli
from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.joints import COMMON14_BONES, THREEDPW_2D
from glot.human.safe_pickle import load_pickle
from pipelines.motions.mocap import FPS, PELVIS, Motion, load_motions, resample
from pipelines.motions.variety import Variety
from pipelines.scenes.actors import Person, place, random_betas, random_chain
from pipelines.scenes.appearance import random_clothes
from pipelines.scenes.filming import HIGHEST, detect, film, random_camera
from pipelines.scenes.legacy_pickle import dump

VERSION = 3  # of what a seed gives; raised when the pictures of a seed change
SPLITS = ("train", "validation", "test")
# Of the shipped clips. The six walks are one man's and nearly alike, so they stay together: nobody walks in train.
HELD_OUT = {
    "validation": ("jump", "punch"),
    "test": ("run", "walk", "walk_forward", *(f"walk_turn_{side}{i}" for side in ("left", "right") for i in (0, 1))),
}
FRAMES = (72, 97)  # of a sequence: at least, below
JPEG_QUALITY = 92
SHORTEST = 15  # frames a clip must have
AS_RECORDED = 0.2  # of the people in train; the others move in ways that nobody was recorded in
LARGEST = 0.85  # share of the picture's height that a standing person may take up


@dataclass(frozen=True)
class Settings:
    """All that decides what a sample contains."""

    seed: int
    sequences: int
    image_size: int
    motions: str  # hash of the clips
    body: str  # hash of the body file
    as_recorded: float = AS_RECORDED
    highest_camera: float = HIGHEST
    largest: float = LARGEST
    every: tuple[int, ...] = (1,)
    version: int = VERSION


# What samples hold that were made before these could be chosen.
DEFAULTS = {field.name: field.default for field in fields(Settings) if field.default is not MISSING}
DEFAULTS["every"] = [1]


@dataclass(frozen=True)
class Plan:
    """One sequence: its name, its split, the clips of that split, and which of them it opens with."""

    index: int
    name: str
    split: str
    first: str
    clips: tuple[str, ...]


def split_clips(names: list[str], *, seed: int) -> dict[str, tuple[str, ...]]:
    """Every clip to one split. The shipped clips have fixed splits; others are dealt 70/10/20 by the seed."""
    held = {name for clips in HELD_OUT.values() for name in clips}
    if held < set(names):
        splits = {split: tuple(n for n in names if n in HELD_OUT.get(split, ())) for split in SPLITS}
        return splits | {"train": tuple(n for n in names if n not in held)}
    if len(names) < 3:
        raise InputError(
            f"--motions holds {len(names)} clip(s); train, validation and test need one each, so at least 3"
        )
    order = [names[i] for i in np.random.default_rng([seed, 0]).permutation(len(names))]
    test, validation = max(1, round(0.2 * len(order))), max(1, round(0.1 * len(order)))
    return {
        "train": tuple(sorted(order[test + validation :])),
        "validation": tuple(sorted(order[test : test + validation])),
        "test": tuple(sorted(order[:test])),
    }


def plan(settings: Settings, names: list[str]) -> list[Plan]:
    """The sequences of a sample: about 70/10/20 between the splits, each split going round its clips."""
    clips = split_clips(names, seed=settings.seed)
    total = settings.sequences
    counts = {"test": max(1, round(0.2 * total)), "validation": max(1, round(0.1 * total)) if total > 2 else 0}
    counts["train"] = total - sum(counts.values())
    plans: list[Plan] = []
    for split in SPLITS:
        order = np.random.default_rng([settings.seed, 2]).permutation(len(clips[split]))
        for number in range(counts[split]):
            first = clips[split][order[number % len(order)]]
            name = f"{split}_{first}_{number:02d}".replace("/", "-").replace(" ", "-")
            plans.append(Plan(len(plans), name, split, first, clips[split]))
    return plans


def shoot(out: Path, job: Plan, settings: Settings, *, body: Body, motions: dict[str, Motion]) -> None:
    """Renders and annotates one sequence; everything about it follows from the seed and its index."""
    rng = np.random.default_rng([settings.seed, 1, job.index])
    size = settings.image_size
    people = cast(rng, job, settings, body=body, motions=motions)
    frames = len(people[0].trans)
    fill = (0.45, settings.largest) if len(people) == 1 else (0.4, 0.7)
    camera = random_camera(rng, people, size=size, fill=fill, highest=settings.highest_camera)
    poses2d = np.zeros((len(people), frames, 3, 18))
    images = (
        out / ".building" / f"{job.name}.{os.getpid()}"
    )  # a killed run's last process may still be at work beside us
    images.mkdir(parents=True)
    for frame, (image, sights) in enumerate(film(rng, people, camera, size=size, body=body)):
        for person, (pixels, sight) in enumerate(sights):
            poses2d[person, frame] = detect(pixels, sight, rng)
        path = str(images / f"image_{frame:05d}.jpg")
        if not cv2.imwrite(path, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OSError(f"{path}: the picture could not be written; is the disk full?")
    final = out / "imageFiles" / job.name
    shutil.rmtree(final, ignore_errors=True)
    images.rename(final)
    cam_poses, valid = misalign(rng, camera.world_to_camera)
    record = annotation(job.name, people, poses2d, cam_poses=cam_poses, valid=valid, intrinsics=camera.intrinsics)
    record["genders"] = [str(rng.choice(["m", "f"])) for _ in people]
    dump(record, out / "sequenceFiles" / job.split / f"{job.name}.pkl")


def cast(
    rng: np.random.Generator, job: Plan, settings: Settings, *, body: Body, motions: dict[str, Motion]
) -> list[Person]:
    """One or two people who keep out of each other's way. Most of train are varied: half a minute of motion is soon
    known by heart. Those of the other splits move as they were recorded."""
    every = settings.every[job.index % len(settings.every)]
    frames = int(rng.integers(*FRAMES)) * every
    clips = {name: motions[name] for name in job.clips}
    people: list[Person] = []
    for _ in range(2 if rng.random() < 0.35 else 1):
        first = job.first if not people else job.clips[rng.integers(len(job.clips))]
        motion = random_chain(rng, clips, first=first, frames=frames)
        if job.split == "train" and rng.random() >= settings.as_recorded:
            another = random_chain(rng, clips, first=job.clips[rng.integers(len(job.clips))], frames=frames)
            motion = Variety(clips).move(motion, another, rng)
        motion = Motion(motion.poses[::every], motion.trans[::every], motion.fps / every)
        person = place(body, motion, betas=random_betas(rng), colours=random_clothes(rng, body))
        if people:
            person = beside(rng, person, people[0])
        people.append(person)
    return people


def beside(rng: np.random.Generator, person: Person, other: Person) -> Person:
    """``person`` moved to the nearest of some random places where the two never come closer than 0.9 m."""
    track, theirs = person.smpl_joints[:, PELVIS], other.smpl_joints[:, PELVIS]
    middle = theirs[len(theirs) // 2] - track[len(track) // 2]
    for away in np.linspace(0.8, 4.0, 17):
        angle = rng.uniform(0, 2 * np.pi)
        shift = (middle + away * np.array([np.sin(angle), 0, np.cos(angle)])) * [1, 0, 1]
        if np.linalg.norm((track + shift - theirs)[:, [0, 2]], axis=1).min() > 0.9:
            break
    shift = shift.astype(np.float32)
    moved = (person.vertices + shift, person.smpl_joints + shift, person.joints + shift)
    return Person(person.poses, person.trans + shift, person.betas, *moved, person.colours)


def misalign(rng: np.random.Generator, world_to_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Now and then 3DPW lost its camera: for a while the matrices are really wrong, and ``valid`` (N,) says 0."""
    frames = len(world_to_camera)
    poses, valid = world_to_camera.copy(), np.ones(frames, dtype=np.int64)
    if rng.random() < 0.35:
        length = int(rng.integers(5, 16))
        start = int(rng.integers(0, frames - length))
        wrong = np.eye(4)
        wrong[:3, :3] = Rotation.from_rotvec(rng.uniform(0.1, 0.35) * _unit(rng)).as_matrix()
        wrong[:3, 3] = rng.uniform(0.2, 0.6) * _unit(rng)
        poses[start : start + length] = wrong @ poses[start : start + length]
        valid[start : start + length] = 0
    return poses, valid


def _unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def annotation(
    name: str,
    people: list[Person],
    poses2d: np.ndarray,
    *,
    cam_poses: np.ndarray,
    valid: np.ndarray,
    intrinsics: np.ndarray,
) -> dict[str, Any]:
    """The dict of a 3DPW sequence file, every key of the real ones; the clothed models are left empty."""
    frames = len(cam_poses)
    twice = [
        resample(Motion(p.poses, p.trans, 30.0), times=np.arange(2 * frames - 1) / 60)  # the IMUs' 60 Hz
        for p in people
    ]
    count = len(people)
    return {
        "sequence": name,
        "betas": [p.betas.astype(np.float64) for p in people],
        "betas_clothed": [p.betas.astype(np.float64) for p in people],
        "poses": [p.poses.reshape(frames, 72).astype(np.float64) for p in people],
        "trans": [p.trans.astype(np.float64) for p in people],
        "poses_60Hz": [m.poses.reshape(-1, 72).astype(np.float64) for m in twice],
        "trans_60Hz": [m.trans.astype(np.float64) for m in twice],
        "poses2d": list(poses2d),
        "jointPositions": [p.smpl_joints.reshape(frames, 72).astype(np.float64) for p in people],
        "img_frame_ids": np.arange(frames) * 2,
        "cam_poses": cam_poses.astype(np.float64),
        "campose_valid": [valid.copy() for _ in people],
        "cam_intrinsics": intrinsics.astype(np.float64),
        "texture_maps": [[] for _ in range(count)],
        "v_template_clothed": [[] for _ in range(count)],
    }


def contact_sheet(out: Path, plans: list[Plan], *, columns: int = 6, side: int = 240) -> None:
    """contact_sheet.jpg: some sequences of every split, a row each, with the 2D keypoints drawn."""
    bones = [(THREEDPW_2D.index(a), THREEDPW_2D.index(b)) for a, b in COMMON14_BONES if {a, b} <= set(THREEDPW_2D)]
    rows = []
    for split in SPLITS:
        for job in [p for p in plans if p.split == split][:4]:
            record = load_pickle(out / "sequenceFiles" / split / f"{job.name}.pkl")
            row = []
            for frame in np.linspace(0, len(record["img_frame_ids"]) - 1, columns).astype(int):
                image: Any = cv2.imread(str(out / "imageFiles" / job.name / f"image_{frame:05d}.jpg"))
                scale = side / image.shape[0]
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
                for person, colour in zip(record["poses2d"], ((80, 255, 80), (80, 180, 255)), strict=False):
                    x, y, confidence = person[frame]
                    points = np.round(np.stack([x, y], axis=1) * scale).astype(int).tolist()
                    for a, b in bones:
                        if min(confidence[a], confidence[b]) > 0.3:
                            cv2.line(image, points[a], points[b], colour, 1, cv2.LINE_AA)
                    for point, sure in zip(points, confidence, strict=True):
                        if sure > 0.3:
                            cv2.circle(image, point, 2, colour, -1, cv2.LINE_AA)
                row.append(image)
            row[0][:18] //= 3
            cv2.putText(row[0], job.name, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
            rows.append(np.hstack(row))
    cv2.imwrite(str(out / "contact_sheet.jpg"), np.vstack(rows))


README = """A synthetic sample in the layout of 3DPW (3D Poses in the Wild). It shows no real person and no real place.

imageFiles/<sequence>/image_00000.jpg ...    frames at {rates} per second, {size}x{size}
sequenceFiles/{{train,validation,test}}/      one Python-2 pickle a sequence, with 3DPW's keys and conventions

People are a linear-blend-skinned body with SMPL's joints, moved by motion capture, filmed by a moving virtual camera.
poses2d imitates a 2D detector: projected joints with noise, gaps behind obstacles, zeros where fewer than 6 are found.
Where campose_valid is 0 the camera matrices are wrong on purpose, as in the real data.
No clip of motion is in two splits. Numbers measured here say nothing about 3DPW.

Made by pipelines/make_sample.py with seed {seed} and {sequences} sequences; the same seed makes the same files.
Licence: as the motions and the body that went in. With the shipped ones (see NOTICE) use and pass it on freely.
"""

_worker: dict[str, Any] = {}


def _ignore_ctrl_c_and_start(body: Path | None, motions: dict[str, Motion]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's to handle
    _start_worker(body, motions)


def _start_worker(body: Path | None, motions: dict[str, Motion]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker.update(body=load_body(body), motions=motions)


def _work(out: Path, job: Plan, settings: Settings) -> str:
    shoot(out, job, settings, **_worker)
    return job.name


def _shoot_all(
    out: Path, jobs: list[Plan], settings: Settings, motions: dict[str, Motion], body: Path | None, workers: int
) -> Iterator[str]:
    """Names of sequences as they are finished, by ``workers`` processes; one worker is this process itself."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        _start_worker(body, motions)
        for job in jobs:
            yield _work(out, job, settings)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_ignore_ctrl_c_and_start, initargs=(body, motions)
    ) as pool:
        try:
            for future in as_completed([pool.submit(_work, out, job, settings) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def build(
    out: Path,
    settings: Settings,
    *,
    motions: dict[str, Motion],
    body: Path | None = None,
    workers: int = 1,
) -> list[Plan]:
    """Makes what is missing of a sample in ``out``. Raises InputError if ``out`` holds something made otherwise."""
    plans = plan(settings, sorted(motions))
    if _claim(out, settings):
        return plans
    todo = [p for p in plans if not (out / "sequenceFiles" / p.split / f"{p.name}.pkl").is_file()]
    if len(todo) < len(plans):
        print(f"{len(plans) - len(todo)} of {len(plans)} sequences are there already", file=sys.stderr)
    for _ in cli.progress(_shoot_all(out, todo, settings, motions, body, workers), total=len(todo), what="sequences"):
        pass
    contact_sheet(out, plans)
    rates = " or ".join(f"{FPS / every:g}" for every in settings.every)
    (out / "README.txt").write_text(
        README.format(size=settings.image_size, seed=settings.seed, sequences=settings.sequences, rates=rates)
    )
    shutil.rmtree(out / ".building", ignore_errors=True)
    splits = split_clips(sorted(motions), seed=settings.seed)
    _publish(out / "sample.json", _as_json(settings) | {"clips": splits, "names": [p.name for p in plans]})
    return plans


def _claim(out: Path, settings: Settings) -> bool:
    """Makes ``out`` ours. True if a finished sample of these very settings is there already."""
    for name in ("sample.json", ".building/settings.json"):
        if (out / name).is_file():
            try:
                found = json.loads((out / name).read_text())
            except ValueError:
                raise InputError(f"{out / name}: is damaged; remove {out} and make the sample again") from None
            for key, value in _as_json(settings).items():
                if found.get(key, DEFAULTS.get(key)) != value:
                    raise InputError(
                        f"{out}: holds a sample with {key}={found.get(key, DEFAULTS.get(key))}, not {value}; "
                        "choose another --out or remove it"
                    )
            if name == "sample.json":
                return True
    if not (out / ".building" / "settings.json").is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out}: exists and is not a sample; choose a new or empty folder for --out")
        (out / ".building").mkdir(parents=True)
        _publish(out / ".building" / "settings.json", _as_json(settings))
    for folder in ("imageFiles", *(f"sequenceFiles/{split}" for split in SPLITS)):
        (out / folder).mkdir(parents=True, exist_ok=True)
    return False


def _as_json(settings: Settings) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(settings))))


def _publish(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.rename(path)


def motions_hash(motions: dict[str, Motion]) -> str:
    digest = hashlib.sha256()
    for name in sorted(motions):
        digest.update(name.encode() + motions[name].poses.tobytes() + motions[name].trans.tobytes())
    return digest.hexdigest()[:16]


def main(
    out: Annotated[Path, typer.Option(help="folder to make; an unfinished one is continued")],
    motions: Annotated[
        Path | None, typer.Option(help=".bvh or .npz file, or a folder of them; left out: the shipped clips")
    ] = None,
    sequences: Annotated[int, typer.Option(help="how many clips of 72 to 96 frames", min=2)] = 40,
    seed: Annotated[int, typer.Option(help="the same seed makes the same files", min=0)] = 0,
    image_size: Annotated[int, typer.Option(help="width and height, pixels", min=64, max=2048)] = 480,
    as_recorded: Annotated[
        float, typer.Option(help="share of train's people who move as they were recorded", min=0, max=1)
    ] = AS_RECORDED,
    highest_camera: Annotated[
        float, typer.Option(help="cameras stand between 0.35 m and this", min=0.5, max=10)
    ] = HIGHEST,
    largest: Annotated[
        float, typer.Option(help="how much of the picture's height somebody may take up; over 1 is cut off", min=0.5)
    ] = LARGEST,
    every: Annotated[
        list[int] | None,
        typer.Option(help="keep every n-th frame only, as of a slower camera; several: sequences take turns", min=1),
    ] = None,
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; left out: the open body")] = None,
    workers: Annotated[int | None, typer.Option(help="processes; left out: one a core", min=1)] = None,
) -> None:
    """Makes a synthetic video dataset in 3DPW's layout, to run the whole pipeline without a licence or a download.

    About 3,400 pictures in two minutes on two cores. Look at OUT/contact_sheet.jpg, then:

    `python pipelines/extract_features.py --dataset 3dpw --root OUT --split train --out features`
    """
    loaded = load_motions(motions)
    clips = {name: clip for name, clip in loaded.items() if len(clip) >= SHORTEST}
    if len(clips) < len(loaded):
        print(f"{len(loaded) - len(clips)} clips of under {SHORTEST} frames are left out", file=sys.stderr)
    settings = Settings(
        seed,
        sequences,
        image_size,
        motions_hash(clips),
        load_body(body).file_hash,
        as_recorded=as_recorded,
        highest_camera=highest_camera,
        largest=largest,
        every=tuple(every or (1,)),
    )
    cores = len(os.sched_getaffinity(0))
    plans = build(out, settings, motions=clips, body=body, workers=workers or cores)
    images = sum(1 for p in plans for _ in (out / "imageFiles" / p.name).glob("*.jpg"))
    print(f"{out}: {len(plans)} sequences, {images} pictures; see {out / 'contact_sheet.jpg'}")
