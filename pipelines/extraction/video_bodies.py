"""A folder of videos in, a folder of bodies for each out, as a Ray Data job: glot.predict for several videos at once.

A worker gets the name and the path of a video, reconstructs its people, and renames the folder when it is finished.
"""

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glot.capture.capture import capture
from glot.capture.capture_options import CaptureOptions
from glot.capture.result_folder import BODIES, describe, done_before
from glot.capture.spec import PredictVideosSpec
from glot.capture.studio import Studio
from glot.capture.video_list import check_tracks, find_videos, name_in_tracks
from glot.errors import InputError
from glot.people.video import estimated_frames
from pipelines.extraction.messages import say
from pipelines.extraction.tries import DIED, begin
from pipelines.extraction.worker_pool import PoolJob, Worker, WorkerContext, run_pool

FAILED = "failed"  # an outcome beside those of glot.capture.result_folder
TRIES = ".tries"  # prefix of a folder below --out in which the tries of one run are counted


def reconstruct_videos(spec: PredictVideosSpec) -> int:
    """Reconstructs the videos that have no results yet. Returns exit code 1 if some video has no bodies, else 0."""
    root, out = spec.videos.absolute(), spec.out.absolute()
    videos = find_videos(root)
    check_tracks(root, videos, spec)
    studio = Studio(spec.absolute())  # loaded here as well, so that a mistake is reported before any worker starts
    outcomes, missing = {}, {}
    for name, path in videos.items():
        if summary := done_before(out / name, studio.settings):
            outcomes[name] = summary["outcome"]
        else:
            missing[name] = path
    say(f"{root}: {len(videos)} videos" + (f", {len(outcomes)} of them done before" if outcomes else ""))
    if missing:
        arguments = {"root": root, "out": out, "options": studio.options, "settings": studio.settings}
        outcomes |= _run(missing, out, arguments, spec.workers)
    without = [name for name, outcome in outcomes.items() if outcome != BODIES]
    say(f"{len(videos) - len(without)} of {len(videos)} videos have bodies: {out}")
    return 1 if without else 0


def _run(videos: Mapping[str, Path], out: Path, arguments: dict[str, Any], workers: int) -> dict[str, str]:
    """Runs the Ray Data job: a pool of workers reconstructs the videos. Returns {name: outcome}."""
    frames = {name: estimated_frames(path) for name, path in videos.items()}
    longest_first = sorted(videos, key=lambda name: -frames[name])
    notes = out / f"{TRIES}-{uuid.uuid4().hex[:8]}"
    notes.mkdir(parents=True)
    try:
        rows = run_pool(
            PoolJob(
                worker=PredictVideo,
                arguments={**arguments, "notes": notes},
                items=[{"name": name, "frames": frames[name], "video": str(videos[name])} for name in longest_first],
                frames=sum(frames.values()),
                what="predict",
                workers=workers,
                collect=True,
            )
        )
    finally:
        shutil.rmtree(notes, ignore_errors=True)
    for row in rows:
        say(f"{row['name']}: {row['message']}")
    return {str(row["name"]): str(row["outcome"]) for row in rows}


class PredictVideo(Worker):
    """Reconstructs videos, and returns the outcome of each with a line that describes it."""

    def __init__(
        self,
        root: Path,
        out: Path,
        options: CaptureOptions,
        settings: dict[str, Any],
        notes: Path,
        context: WorkerContext,
    ) -> None:
        super().__init__(context)
        self.root, self.out, self.notes = root, out, notes
        self.studio = Studio(options)
        if self.studio.settings != settings:
            raise InputError("the files of --checkpoint, --weights or --body are not the same on every node")
        self.started()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        name, video, frames = str(row["name"]), Path(str(row["video"])), int(row["frames"])
        with self.writing(self.out):
            outcome, message = self._predict(name, video)
        self.report(frames, 0 if outcome == BODIES else frames)
        return {"name": name, "outcome": outcome, "message": message}

    def _predict(self, name: str, video: Path) -> tuple[str, str]:
        folder = self.out / name
        if not begin(self.notes / hashlib.sha256(name.encode()).hexdigest()[:16]):
            return FAILED, DIED
        try:
            # If a worker dies after it has renamed the folder, its video is given to another worker.
            summary = done_before(folder, self.studio.settings) or capture(
                video, folder, self.studio, name_in_tracks=name_in_tracks(self.root, video)
            )
        except InputError as error:
            return FAILED, str(error)
        return str(summary["outcome"]), describe(summary)
