"""The command that imports feature files of VIBE, TCMR and GLoT as feature sets."""

from glot import cli
from pipelines.imports.spec import ImportSpec


def main(spec: ImportSpec) -> int:
    """Turn preprocessed files of TCMR, VIBE and GLoT into a feature set. The features stay the same bit for bit.

    **Example**: `python pipelines/import_features.py --dataset 3dpw --split test --src 3dpw_test_db.pt`

    Nothing in a file is executed. A file that needs anything but arrays is refused, and the message says what it needs.
    An interrupted import continues where it stopped. Rows that cannot be used are left out and listed in manifest.json;
    the exit code is then 1, unless `--allow-skips` is given.
    """
    from pipelines.imports.importing import import_file

    manifest = import_file(spec)
    return 1 if manifest.skipped and not spec.allow_skips else 0


def command() -> None:
    """Entry point of ``glot-import``."""
    cli.run(main)


if __name__ == "__main__":
    command()
