"""What commands print about the sets that they make."""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from glot.features.schema import MANIFEST, Manifest
from pipelines.extraction.outcomes import DAMAGED, DONE, FAILED, Outcome

SHOWN_SKIPS = 5


def say(text: str) -> None:
    """Prints a line to the terminal or the job's log at once, not when a buffer is full."""
    print(text, flush=True)


def say_work(
    name: str, changes: str, units: int, outcomes: Collection[Outcome], *, lost: int = 0, left: int, code: str
) -> None:
    """Prints what a run finds of the set ``name``, and what it does.

    ``changes``: how the sources differ from the plan; ``units``: how many it has; ``outcomes``: theirs; ``lost`` and
    ``left``: how many units are done but have no rows any more, and how many this run does; ``code``: its version.
    """
    kinds = Counter(outcome.kind for outcome in outcomes)
    found = [f"{kinds[DONE]} done before"] if kinds[DONE] else []
    found += [f"{kinds[DAMAGED]} damaged (--retry-skipped tries them again)"] if kinds[DAMAGED] else []
    found += [f"{kinds[FAILED]} failed before"] if kinds[FAILED] else []
    found += [f"the rows of {lost} are lost"] if lost else []
    found += [f"{left} to do" if left else "nothing to do"]
    say(f"{name}: {changes}; {units} units: {', '.join(found)}")
    versions = _versions(outcomes) - {code}
    if left and versions:
        say(
            f"{name}: what is done was done by version {', '.join(sorted(versions))}, and the rest is done by {code}; "
            "the manifest will name both"
        )


def say_skipped(folder: Path, manifest: Manifest) -> None:
    """Prints the first pictures, sequences or tracks that were skipped, and the number of all of them."""
    name = f"{manifest.dataset} {manifest.split}"
    for entry in manifest.skipped[:SHOWN_SKIPS]:
        say(f"{name}: skipped {entry['what']}: {entry['reason']} ({_frames(entry['frames'])})")
    if manifest.skipped:
        frames = _frames(sum(entry["frames"] for entry in manifest.skipped))
        count = f"{len(manifest.skipped)} skipped in all ({frames}), listed in {folder / MANIFEST}"
        say(f"{name}: {count}; with --allow-skips the exit code is 0")


def _versions(outcomes: Iterable[Outcome]) -> set[str]:
    return {outcome.code for outcome in outcomes if outcome.kind == DONE and outcome.code}


def _frames(count: int) -> str:
    return f"{count} {'frame' if count == 1 else 'frames'}"
