"""What commands print about the sets that they make."""

from pathlib import Path

from glot.features.schema import MANIFEST, Manifest
from pipelines.jobs.job_progress import say

SHOWN_SKIPS = 5


def say_skipped(folder: Path, manifest: Manifest) -> None:
    """Prints the first pictures, sequences or tracks that were skipped, and the number of all of them."""
    name = f"{manifest.dataset} {manifest.split}"
    for entry in manifest.skipped[:SHOWN_SKIPS]:
        say(f"{name}: skipped {entry['what']}: {entry['reason']} ({_frames(entry['frames'])})")
    if manifest.skipped:
        frames = _frames(sum(entry["frames"] for entry in manifest.skipped))
        count = f"{len(manifest.skipped)} skipped in all ({frames}), listed in {folder / MANIFEST}"
        say(f"{name}: {count}; with --allow-skips the exit code is 0")


def _frames(count: int) -> str:
    return f"{count} {'frame' if count == 1 else 'frames'}"
