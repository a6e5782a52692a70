"""The command that checks whether feature sets are whole and plausible."""

from glot import cli
from pipelines.checks.spec import CheckSpec


def main(spec: CheckSpec) -> int:
    """Check feature sets: files, columns, counts, the order of rows, NaN, boxes, confidences.

    It prints a page about each set: what is in it, and the counts that papers and code report. The exit code is 1 if
    one of the sets is broken.

    **Example**: `python pipelines/check_features.py features`

    **To look at a set**: `python pipelines/check_features.py features/3dpw/train --sheet sheet.png --root data/3dpw`.
    Red must be the person's right side, and every joint must be where it belongs.
    """
    from pipelines.checks.checking import check_sets

    return 0 if check_sets(spec) else 1


def command() -> None:
    """Entry point of ``glot-check-features``."""
    cli.run(main)


if __name__ == "__main__":
    command()
