"""A folder in; a page about each feature set in it, a sheet of crops if there is --sheet, and a verdict out."""

from pathlib import Path

from glot.errors import InputError
from glot.features.schema import MANIFEST, read_manifest
from glot.home import missing_error
from pipelines.checks.crop_sheet import write_sheet
from pipelines.checks.rules import check
from pipelines.checks.spec import MAKE_FEATURES, CheckSpec
from pipelines.checks.summary import Summary

SHOWN_PROBLEMS = 20  # largest number of problems that are printed for one set


def check_sets(spec: CheckSpec) -> bool:
    """Prints a page about each set below the folder, and what is wrong with it. True where nothing is wrong.

    InputError where there is no set, or where the sheet cannot be made.
    """
    sets = sorted(path.parent for path in spec.folder.rglob(MANIFEST))
    if not sets:
        raise missing_error(
            [(f"{spec.folder}: no {MANIFEST} in it or below it; make feature sets with", MAKE_FEATURES)]
        )
    if spec.sheet and len(sets) > 1:
        raise InputError(f"--sheet {spec.sheet}: name one of the {len(sets)} sets")
    verdicts = [check_set(folder) for folder in sets]
    if spec.sheet and spec.root:
        unreadable = write_sheet(spec.sheet, sets[0], read_manifest(sets[0]), spec.root)
        note = f"; {unreadable} pictures could not be read" if unreadable else ""
        print(f"{spec.sheet}: crops with their joints{note}")
    return all(verdicts)


def check_set(folder: Path) -> bool:
    """Prints the page about one set. True where nothing is wrong with it."""
    try:
        manifest = read_manifest(folder)
        summary = Summary()
        problems = check(folder, manifest, summary)
        page = summary.page(manifest)
    except InputError as error:
        print(f"{folder}: broken\n  {error}")
        return False
    print(f"{folder}: {manifest.rows:,} rows, {manifest.tracks:,} tracks, {len(manifest.parts):,} parts")
    print(*page, sep="\n")
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"  broken: {problem}")
    if len(problems) > SHOWN_PROBLEMS:
        print(f"  broken: and {len(problems) - SHOWN_PROBLEMS} more problems")
    print(f"  {'broken' if problems else 'fine'}")
    return not problems
