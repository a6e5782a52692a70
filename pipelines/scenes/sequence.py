"""A planned sequence in; its pictures and its annotation file out, in 3DPW's layout."""

import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np

from glot.human.body import Body
from glot.location import write_whole
from pipelines.motions.motion_clip import PELVIS, MotionClip
from pipelines.motions.random_motion import random_chain
from pipelines.motions.variety import Variety
from pipelines.scenes.camera_paths import camera_of
from pipelines.scenes.filming import clothed_person, imitate_detector, render_people
from pipelines.scenes.legacy_pickle import dump
from pipelines.scenes.posed_person import PosedPerson
from pipelines.scenes.sequence_plan import PlannedSequence
from pipelines.scenes.spec import SampleSettings
from pipelines.scenes.threedpw_annotations import sequence_record

FRAMES = (72, 97)  # a sequence has at least the first number of frames and fewer than the second
JPEG_QUALITY = 92
UNFINISHED = ".building"  # the folder for sequences that are not finished yet
CLOSEST = 0.9  # metres between two people


def annotation_file(out: Path, sequence: PlannedSequence) -> Path:
    """The file of a sequence that is written last: if it exists, the sequence is whole."""
    return out / "sequenceFiles" / sequence.split / f"{sequence.name}.pkl"


def image_folder(out: Path, sequence: PlannedSequence) -> Path:
    return out / "imageFiles" / sequence.name


def render_sequence(
    out: Path, settings: SampleSettings, sequence: PlannedSequence, *, body: Body, clips: dict[str, MotionClip]
) -> None:
    """Renders and annotates one sequence. The settings and the sequence's index determine everything about it."""
    start = time.process_time()
    rng = np.random.default_rng([settings.seed, 1, sequence.index])
    size = settings.image_size
    people = cast_people(rng, settings, sequence, body=body, clips=clips)
    frames = len(people[0].trans)
    fill = (0.45, settings.largest) if len(people) == 1 else (0.4, 0.7)
    camera = camera_of(settings.look)(rng, people, size=size, fill=fill, highest=settings.highest_camera)
    poses2d = np.zeros((len(people), frames, 3, 18))
    # Named after this process, because one of a killed run may not have ended yet.
    folder = out / UNFINISHED / f"{sequence.name}.{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)  # of another process with the same number
    folder.mkdir(parents=True)
    for frame, (image, joints) in enumerate(
        render_people(rng, people, camera, size=size, body=body, look=settings.look)
    ):
        for person, (pixels, visibility) in enumerate(joints):
            poses2d[person, frame] = imitate_detector(pixels, visibility, rng)
        path = str(folder / f"image_{frame:05d}.jpg")
        if not cv2.imwrite(path, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise OSError(f"{path}: the picture could not be written; is the disk full?")
    write_whole(_seconds_file(out, sequence), f"{time.process_time() - start:.1f}".encode())
    shutil.rmtree(image_folder(out, sequence), ignore_errors=True)
    folder.rename(image_folder(out, sequence))
    dump(sequence_record(rng, sequence.name, people, camera, poses2d), annotation_file(out, sequence))


def _seconds_file(out: Path, sequence: PlannedSequence) -> Path:
    return out / UNFINISHED / f"{sequence.name}.seconds"


def seconds_of(out: Path, sequence: PlannedSequence) -> float | None:
    """Seconds of a core that the sequence took, as long as the sample is not finished; None if nobody knows."""
    try:
        return float(_seconds_file(out, sequence).read_text())
    except (OSError, ValueError):
        return None


def every_of(settings: SampleSettings, sequence: PlannedSequence) -> int:
    """Of the frames of its motion, a sequence has every n-th only; this n."""
    return settings.every[sequence.index % len(settings.every)]


def cast_people(
    rng: np.random.Generator,
    settings: SampleSettings,
    sequence: PlannedSequence,
    *,
    body: Body,
    clips: dict[str, MotionClip],
) -> list[PosedPerson]:
    """One or two people at some distance from each other.

    In train, most motions are varied, because a network soon memorises half a minute of clips. In the other splits,
    people move as they were recorded.
    """
    every = every_of(settings, sequence)
    frames = int(rng.integers(*FRAMES)) * every
    clips_of_split = {name: clips[name] for name in sequence.clips}
    people: list[PosedPerson] = []
    for _ in range(2 if rng.random() < 0.35 else 1):
        first = sequence.first if not people else sequence.clips[rng.integers(len(sequence.clips))]
        motion = random_chain(rng, clips_of_split, first=first, frames=frames)
        if sequence.split == "train" and rng.random() >= settings.as_recorded:
            first = sequence.clips[rng.integers(len(sequence.clips))]
            motion = Variety(clips_of_split).vary(
                motion, random_chain(rng, clips_of_split, first=first, frames=frames), rng
            )
        motion = MotionClip(motion.poses[::every], motion.trans[::every], motion.fps / every)
        person = clothed_person(rng, motion, body=body, look=settings.look)
        if people:
            person = moved_beside(rng, person, people[0])
        people.append(person)
    return people


def moved_beside(rng: np.random.Generator, person: PosedPerson, other: PosedPerson) -> PosedPerson:
    """``person`` moved to the nearest of some random places at which the two are always ``CLOSEST`` metres apart."""
    track, other_track = person.smpl_joints[:, PELVIS], other.smpl_joints[:, PELVIS]
    middle = other_track[len(other_track) // 2] - track[len(track) // 2]
    for distance in np.linspace(0.8, 4.0, 17):
        angle = rng.uniform(0, 2 * np.pi)
        shift = (middle + distance * np.array([np.sin(angle), 0, np.cos(angle)])) * [1, 0, 1]
        if np.linalg.norm((track + shift - other_track)[:, [0, 2]], axis=1).min() > CLOSEST:
            break
    return person.moved(shift.astype(np.float32))
