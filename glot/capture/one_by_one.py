"""A video or a folder of videos in; the bodies of each out, one video after the other."""

import sys

from glot.capture.capture import capture
from glot.capture.result_folder import NOBODY, describe, done_before
from glot.capture.spec import PredictSpec
from glot.capture.studio import Studio
from glot.capture.video_list import check_tracks, find_videos, name_in_tracks
from glot.errors import InputError
from glot.models.inference import print_notes


def predict_videos(spec: PredictSpec) -> int:
    """Writes the results of each video that has none; returns the exit code.

    InputError if ``spec.video`` is one file that cannot be read.
    """
    root, out = spec.video, spec.result
    assert root is not None
    videos = find_videos(root)
    check_tracks(root, videos, spec)
    studio = Studio(spec)
    print_notes(studio.checkpoint)
    failed = []
    for name, path in videos.items():
        folder = out / name
        try:
            if summary := done_before(folder, studio.settings):
                print(f"{name}: done before; {describe(summary)}", flush=True)
            else:
                summary = capture(path, folder, studio, name_in_tracks=name_in_tracks(root, path))
                print(f"{name}: {describe(summary)}\n{folder}", flush=True)
            if summary["outcome"] == NOBODY:
                failed.append(name)
        except InputError as error:
            if root.is_file():
                raise
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    if len(videos) > 1:
        print(f"{len(videos) - len(failed)} of {len(videos)} videos have bodies: {out}")
    return 1 if failed else 0
