"""The command that predicts for many videos: a folder of videos in, a folder of bodies for each out."""

from glot import cli
from glot.capture.spec import PredictVideosSpec


def main(spec: PredictVideosSpec) -> int:
    """Reconstruct the bodies in all videos of a folder, several videos at once, as a Ray Data job.

    **Example**: `python pipelines/predict_videos.py videos --out bodies`. `python -m glot.predict --help` describes
    what the folder of a video holds.

    After an interruption, run the same command again: it does not repeat finished videos. With RAY_ADDRESS set, or
    under `ray job submit`, it joins that cluster; otherwise it starts a local Ray. A video that cannot be read is
    reported, and the job continues with the other videos. The exit code is then 1, and also if there was a video in
    which nobody was found. Exit code 75 means that something failed that may succeed later: run the same command again.
    """
    from pipelines.extraction.video_bodies import reconstruct_videos

    return reconstruct_videos(spec)


def command() -> None:
    """Entry point of ``glot-predict-videos``."""
    cli.run(main)


if __name__ == "__main__":
    command()
