"""A folder of videos in, a folder of bodies for each out, as a Ray Data job: glot.predict for several videos at once.

A worker gets the name and the path of a video, reconstructs its people, and renames the folder when it is finished.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glot.capture.capture import capture
from glot.capture.result_folder import BODIES, describe, done_before
from glot.capture.spec import PredictVideosSpec
from glot.capture.studio import Studio
from glot.capture.video_list import check_tracks, find_videos, name_in_tracks
from glot.cli import NOT_FINISHED
from glot.errors import InputError
from glot.models.inference import print_notes
from glot.people.footage import Footage
from glot.people.video import estimated_frames
from pipelines.jobs.bookkeeper import DONE, FAILED, Result
from pipelines.jobs.job_progress import say
from pipelines.jobs.pool_worker import Item, PoolWorker
from pipelines.jobs.separate_process import call_separately
from pipelines.jobs.worker_pool import PoolJob, ray_session, run_pool


def reconstruct_videos(spec: PredictVideosSpec) -> int:
    """Reconstructs the videos that have no results yet.

    Returns exit code 75 if a video failed that may succeed later, 1 if some video has no bodies, else 0.
    """
    root, out = spec.videos.absolute(), spec.out.absolute()
    videos = find_videos(root)
    check_tracks(root, videos, spec)
    studio = Studio(spec.absolute())  # loaded here as well, so that a mistake is reported before any worker starts
    print_notes(studio.checkpoint)
    outcomes, missing = {}, {}
    for name, path in videos.items():
        if summary := done_before(out / name, studio.settings):
            outcomes[name] = summary["outcome"]
        else:
            missing[name] = path
    say(f"{root}: {len(videos)} videos" + (f", {len(outcomes)} of them done before" if outcomes else ""))
    failed = False
    if missing:
        arguments = {"root": root, "out": out, "options": studio.options, "settings": studio.settings}
        for result in _run(missing, arguments, spec.workers):
            outcome, message = result.value or (result.kind, result.reason.strip().splitlines()[-1])
            outcomes[result.key] = outcome
            failed = failed or result.kind == FAILED
            say(f"{result.key}: {message}")
    without = [name for name in videos if outcomes.get(name) != BODIES]
    say(f"{len(videos) - len(without)} of {len(videos)} videos have bodies: {out}")
    return NOT_FINISHED if failed else 1 if without else 0


def _run(videos: Mapping[str, Path], arguments: dict[str, Any], workers: int) -> Sequence[Result]:
    """Runs the Ray Data job: a pool of workers reconstructs the videos, the longest first."""
    frames = {name: estimated(path) for name, path in videos.items()}
    longest_first = sorted(videos, key=lambda name: -frames[name])
    with ray_session():
        return run_pool(
            PoolJob(
                worker=PredictVideo,
                arguments=arguments,
                tasks=[{"keys": [name], "frames": frames[name], "video": str(videos[name])} for name in longest_first],
                frames=sum(frames.values()),
                what="predict",
                workers=workers,
            )
        ).results


def estimated(path: Path) -> int:
    """The number of frames by a video's header; 0 for a video that cannot be opened."""
    try:
        return estimated_frames(path)
    except Exception:  # its worker finds out and reports it
        return 0


class PredictVideo(PoolWorker):
    """Reconstructs videos. The value of a result is the outcome with a line that describes it."""

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        torch.set_num_threads(1)
        self.root, self.out = arguments["root"], arguments["out"]
        self.studio = Studio(arguments["options"])
        if self.studio.settings != arguments["settings"]:
            raise InputError("the files of --checkpoint, --weights or --body are not the same on every node")

    def items(self, task: Mapping[str, Any]) -> list[Item]:
        (name,) = task["keys"]
        return [Item(str(name), int(task["frames"]), Path(str(task["video"])))]

    def work(self, item: Item) -> Result:
        folder, video = self.out / item.key, item.content
        # If a worker dies after it has renamed the folder, its video is given to another worker.
        summary = done_before(folder, self.studio.settings) or capture(
            video, folder, self.studio, name_in_tracks=name_in_tracks(self.root, video)
        )
        outcome = str(summary["outcome"])
        skipped = 0 if outcome == BODIES else item.frames
        return Result(item.key, DONE, item.frames, skipped, (outcome, describe(summary)))

    def examine(self, item: Item) -> str:
        return call_separately(read_through, item.content).crash


def read_through(video: Path) -> None:
    """Decodes a video as far as it can be decoded."""
    for _ in Footage(video).pictures("read"):
        pass
