"""A folder of videos in, everybody's bodies out, as a Ray Data job: what glot.predict does to one, several at once.

The unit of work is a video; only its name travels. An actor does all of it and renames the finished folder into place.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import cv2
import torch
import typer

from glot import cli
from glot.capture.capture import (
    BODIES,
    Options,
    Studio,
    capture,
    check_tracks,
    done_before,
    find_videos,
    in_words,
    name_below,
)
from glot.errors import InputError
from glot.location import write_whole
from glot.people.video import frames_said
from pipelines.extraction.job import MOST_TRIES, plan, ray_session, say
from pipelines.extraction.tally import Display, Tally

FAILED = "failed"  # beside the outcomes of glot.capture.capture
TRIES = ".tries"  # folder below --out, of one run: who began what, so that a video that kills its worker is set aside


def main(
    root: Annotated[Path, typer.Argument(help="A folder of videos at any depth.")],
    out: Annotated[Path, typer.Option(help="The results go to OUT/NAME/ for each video.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Folder of a checkpoint; a published .pth.tar file; or open, the project's own.")
    ] = Path("open"),
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    backbone: Annotated[str, typer.Option(help="What looks at the crops: blazepose, or resnet50.")] = "blazepose",
    weights: Annotated[Path | None, typer.Option(help="Of resnet50: SPIN's, for published checkpoints.")] = None,
    detector_weights: Annotated[
        Path | None, typer.Option(help="A torchvision person detector's weights instead of BlazePose's.")
    ] = None,
    tiles: Annotated[int, typer.Option(min=0, help="BlazePose's detector looks closer, too, in so many squares.")] = 0,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Who is where, instead of a detector: a JSON file, or a folder."),
    ] = None,
    fit: Annotated[str, typer.Option(help="limbs, camera or none; see glot.predict.")] = "limbs",
    focal: Annotated[float | None, typer.Option(help="Focal length in px. Default: the picture's diagonal.")] = None,
    smooth: Annotated[bool, typer.Option("--smooth", help="Calm the bodies with the one-euro filter.")] = False,
    pkl: Annotated[bool, typer.Option("--pkl", help="Also people.pkl, as of VIBE's and TCMR's demos.")] = False,
    bvh: Annotated[bool, typer.Option("--bvh", help="Also a .bvh file for each person.")] = False,
    gltf: Annotated[bool, typer.Option("--gltf", help="Also people.glb: everybody, animated.")] = False,
    film: Annotated[bool, typer.Option(help="Draw overlay.mp4, which takes much of the time.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Videos at once; 0: one a CPU core, or one a GPU.")] = 0,
) -> int:
    """Reconstructs the bodies in all videos of a folder, several videos at once, as a Ray Data job.

    **Example**: `python pipelines/predict_videos.py films --out bodies`. What a result folder holds:
    `python -m glot.predict --help`.

    Run it again after any interruption: finished videos are left as they are. With RAY_ADDRESS set, or under `ray job
    submit`, it joins that cluster; otherwise it starts a local Ray. A video that cannot be read, or that kills its
    worker three times, is named and holds nothing back. Exit code 1: there was one, or one in which nobody was found.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not (root.is_absolute() and out.is_absolute()):
        raise InputError("the videos and --out must be absolute in a Ray job: it runs in a copy of your folder")
    root, out = root.absolute(), out.absolute()
    weights, body, detector_weights, tracks = (
        path and path.absolute() for path in (weights, body, detector_weights, tracks)
    )
    checkpoint = checkpoint if str(checkpoint) == "open" else checkpoint.absolute()
    options = Options(
        checkpoint=checkpoint, body=body, backbone=backbone, weights=weights, detector_weights=detector_weights,
        tiles=tiles, tracks=tracks, fit=fit, focal=focal, smooth=smooth, pkl=pkl, bvh=bvh, gltf=gltf, film=film,
    )  # fmt: skip
    videos = find_videos(root)
    check_tracks(videos, options)
    settings = Studio(options).settings  # loaded here, so that a mistake is said before any worker starts
    missing, outcomes = {}, {}
    for name, path in videos.items():
        if summary := done_before(out / name, settings):
            outcomes[name] = summary["outcome"]
        else:
            missing[name] = path
    say(f"{root}: {len(videos)} videos" + (f", {len(outcomes)} of them done before" if outcomes else ""))
    if missing:
        outcomes |= run(missing, root, out, options, settings, workers)
    bad = [name for name, outcome in outcomes.items() if outcome != BODIES]
    say(f"{len(videos) - len(bad)} of {len(videos)} videos have bodies: {out}")
    return 1 if bad else 0


def run(
    videos: Mapping[str, Path], root: Path, out: Path, options: Options, settings: dict[str, Any], workers: int
) -> dict[str, str]:
    """The Ray Data job: names of videos -> a pool of actors; what became of each."""
    frames = {name: frames_said(path) for name, path in videos.items()}
    with ray_session() as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers, resources, _ = plan(nodes, workers, len(videos))
        tally = ray.remote(num_cpus=0)(Tally).remote()
        # Longest first, one video at a time to an actor: nobody is left with a queue at the end.
        items = [
            {"name": name, "frames": frames[name], "video": str(videos[name])}
            for name in sorted(videos, key=lambda name: -frames[name])
        ]
        notes = out / f"{TRIES}-{uuid.uuid4().hex[:8]}"
        notes.mkdir(parents=True)
        arguments = {"root": root, "out": out, "options": options, "settings": settings, "tally": tally, "notes": notes}
        try:
            with Display(lambda: ray.get(tally.read.remote()), total=sum(frames.values()), what="predict"):
                rows = (
                    ray.data.from_items(items, override_num_blocks=len(items))
                    .map(
                        PredictVideo,
                        fn_constructor_kwargs=arguments,
                        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                        **resources,
                    )
                    .take_all()
                )
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            reason = str(cause) if isinstance(cause, InputError) else ray.get(tally.failed.remote())
            if reason:
                raise InputError(f"{reason}; what is done is kept, run the same command again") from None
            raise
        finally:
            shutil.rmtree(notes, ignore_errors=True)
    for row in rows:
        say(f"{row['name']}: {row['said']}")
    return {str(row["name"]): str(row["outcome"]) for row in rows}


class PredictVideo:
    """What an actor runs: ``__call__`` does one video and says what became of it."""

    def __init__(
        self, root: Path, out: Path, options: Options, settings: dict[str, Any], tally: Any, notes: Path
    ) -> None:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        self.root, self.out, self.tally, self.notes = root, out, tally, notes
        self.studio = Studio(options)
        if self.studio.settings != settings:
            raise InputError("the files of --checkpoint, --weights or --body are not the same on every node")
        tally.add.remote(workers=1)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        name, video, frames = str(row["name"]), Path(str(row["video"])), int(row["frames"])
        outcome, said = self._predicted(name, video)
        self.tally.add.remote(frames=frames, skipped=0 if outcome == BODIES else frames)
        return {"name": name, "outcome": outcome, "said": said}

    def _predicted(self, name: str, video: Path) -> tuple[str, str]:
        folder = self.out / name
        try:
            if not self._begun(name):
                return FAILED, f"the worker died on it {MOST_TRIES} times: a decoder that crashes, or too little memory"
            # An actor that died after the rename is given the same video again.
            summary = done_before(folder, self.studio.settings) or capture(
                video, folder, self.studio, named=name_below(self.root, video)
            )
        except InputError as error:
            return FAILED, str(error)
        except OSError as error:
            import ray

            ray.get(self.tally.fail.remote(f"{self.out}: {error}"))
            raise
        return str(summary["outcome"]), in_words(summary)

    def _begun(self, name: str) -> bool:
        """False where MOST_TRIES of this run have begun with the video and none came to an end."""
        for number in range(MOST_TRIES):
            note = self.notes / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-{number}"
            if not note.exists():
                write_whole(note, f"{os.getpid()}\n".encode())
                return True
        return False


def command() -> None:
    """Entry point of ``glot-predict-videos``."""
    cli.run(main)


if __name__ == "__main__":
    command()
