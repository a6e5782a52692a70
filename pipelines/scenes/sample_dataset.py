"""Motions and a body in, a small synthetic video dataset in the layout of 3DPW out, and its frame rates in sample.json.

Every sequence is rendered under a temporary name, then renamed. Its .pkl is written last, and sample.json after all
sequences. So a file with its final name is whole, and the same command continues an unfinished sample.
"""

import json
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from glot import cli
from glot.cores import available_cores
from glot.features.dataset_folders import SAMPLE_FILE
from glot.human.body import load_body
from glot.location import write_whole
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import FPS
from pipelines.scenes.people_splits import SPLITS, PeopleSplits, split_people
from pipelines.scenes.render_folder import check_settings, check_unused, read_settings, write_settings
from pipelines.scenes.render_processes import RenderSource, render_jobs
from pipelines.scenes.sample_sheet import write_sample_sheet
from pipelines.scenes.sample_summary import write_summary
from pipelines.scenes.sequence import UNFINISHED, annotation_file, every_of, image_folder, render_sequence
from pipelines.scenes.sequence_plan import PlannedSequence, hash_of_clips, plan_bench, plan_sequences, split_clips
from pipelines.scenes.spec import EARLIER_SETTINGS, MakeSampleSpec, SampleSettings

SHORTEST = 15  # frames; shorter clips are left out
README = """A synthetic sample in the layout of 3DPW (3D Poses in the Wild). It shows no real person and no real place.

imageFiles/<sequence>/image_00000.jpg ...    frames at {rates} per second, {size}x{size}
sequenceFiles/{{train,validation,test}}/      one Python-2 pickle a sequence, with 3DPW's keys and conventions

People are a linear-blend-skinned body with SMPL's joints, moved by motion capture, filmed by a moving virtual camera.
poses2d imitates a 2D detector: projected joints with noise, gaps behind obstacles, zeros where fewer than 6 are found.
Where campose_valid is 0 the camera matrices are wrong on purpose, as in the real data.
No {what} is in two splits. Numbers measured here say nothing about 3DPW.

summary.json                  what is in each split, seconds, and a hash of all pictures and annotations

Made by pipelines/make_sample.py with seed {seed} and {sequences} sequences; the same seed makes the same files.
Licence: that of the motions and of the body. If they are the shipped ones (see NOTICE), use and share it freely.
"""


class Sample(NamedTuple):
    """A finished sample: its sequences and how many pictures they have together."""

    sequences: list[PlannedSequence]
    pictures: int


def make_sample(spec: MakeSampleSpec) -> Sample:
    """Makes the sample, or its missing sequences. Raises InputError if ``spec.out`` holds anything else."""
    loaded = load_motions(spec.motions)
    clips = {name: clip for name, clip in loaded.items() if len(clip) >= SHORTEST}
    if len(clips) < len(loaded):
        print(f"{len(loaded) - len(clips)} clips with fewer than {SHORTEST} frames are left out", file=sys.stderr)
    people = split_people(spec.motions, clips) if spec.bench and spec.motions else None
    settings = SampleSettings.of(
        spec, motions=hash_of_clips(clips), body=load_body(spec.body).file_hash, people=people.hash if people else ""
    )
    workers = spec.workers or available_cores()
    sequences = build_sample(spec.out, settings, RenderSource(spec.body, clips), workers=workers, people=people)
    pictures = sum(1 for sequence in sequences for _ in image_folder(spec.out, sequence).glob("*.jpg"))
    return Sample(sequences, pictures)


def build_sample(
    out: Path, settings: SampleSettings, source: RenderSource, *, workers: int = 1, people: PeopleSplits | None = None
) -> list[PlannedSequence]:
    """Makes the missing sequences of a sample, or with ``people`` of a bench, in ``out``.

    Raises InputError if ``out`` holds anything else.
    """
    names = sorted(source.clips)
    if people is not None:
        splits = people.clips
        planned = plan_bench(settings, splits, lengths={name: len(clip) for name, clip in source.clips.items()})
        _tell(people, source)
    else:
        splits = split_clips(names, seed=settings.seed)
        planned = plan_sequences(settings, names)
    if _is_finished(out, settings):
        return planned
    _start_or_continue(out, settings)
    remaining = [sequence for sequence in planned if not annotation_file(out, sequence).is_file()]
    if len(remaining) < len(planned):
        print(f"{len(planned) - len(remaining)} of {len(planned)} sequences exist already", file=sys.stderr)
    done = render_jobs(partial(render_sequence, out, settings), remaining, source, workers=workers)
    for _ in cli.progress(done, total=len(remaining), what="sequences"):
        pass
    write_sample_sheet(out, planned)
    what = "clip of motion" if people is None else "person whom the motions name"
    rates = " or ".join(f"{FPS / every:g}" for every in settings.every)
    readme = README.format(
        size=settings.image_size, seed=settings.seed, sequences=settings.sequences, rates=rates, what=what
    )
    write_whole(out / "README.txt", readme.encode())
    write_summary(out, planned, people=people)
    # The layout of 3DPW has no frame rates, so they are here.
    fps = {sequence.name: FPS / every_of(settings, sequence) for sequence in planned}
    content = _as_json(settings) | {"clips": splits, "names": [sequence.name for sequence in planned], "fps": fps}
    write_settings(out / SAMPLE_FILE, content, indent=2)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return planned


def _tell(people: PeopleSplits, source: RenderSource) -> None:
    """Prints what is in the splits."""
    for split, names in people.clips.items():
        who = sorted({people.people[name] for name in names} - {""})
        minutes = sum(len(source.clips[name]) for name in names) / FPS / 60
        unknown = sum(not people.people[name] for name in names)
        extra = f" and {unknown} clips of people not known" if unknown else ""
        print(f"{split}: {len(names)} clips, {minutes:.1f} minutes; people {', '.join(who)}{extra}", file=sys.stderr)
    if people.left_out:
        print(
            f"in no split, because shipped models are measured on them: {len(people.left_out)} clips", file=sys.stderr
        )


def _is_finished(out: Path, settings: SampleSettings) -> bool:
    """Whether ``out`` holds the finished sample of these settings. Raises InputError if it holds another one."""
    if not (out / SAMPLE_FILE).is_file():
        return False
    found = read_settings(out / SAMPLE_FILE, out)
    check_settings(out, found, _as_json(settings), what="a sample", earlier=EARLIER_SETTINGS)
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)  # left by a run that was killed at its very end
    return True


def _start_or_continue(out: Path, settings: SampleSettings) -> None:
    """Makes the folders. Raises InputError if ``out`` holds anything but an unfinished sample of these settings."""
    file = out / UNFINISHED / "settings.json"
    if file.is_file():
        found = read_settings(file, out)
        check_settings(out, found, _as_json(settings), what="a sample", earlier=EARLIER_SETTINGS)
    else:
        check_unused(out, what="a sample")
        file.parent.mkdir(parents=True)
        write_settings(file, _as_json(settings), indent=2)
    for folder in ("imageFiles", *(f"sequenceFiles/{split}" for split in SPLITS)):
        (out / folder).mkdir(parents=True, exist_ok=True)


def _as_json(settings: SampleSettings) -> dict[str, Any]:
    """The settings as they come back from a JSON file: tuples are lists."""
    return dict(json.loads(json.dumps(asdict(settings))))
