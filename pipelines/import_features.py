"""The command that imports features of other projects (VIBE, TCMR, GLoT; WHAM, GVHMR) as feature sets."""

from glot import cli
from pipelines.imports.spec import ImportSpec


def main(spec: ImportSpec) -> int:
    """Turn features that other projects have made into a feature set. The features stay the same bit for bit.

    **SPIN's features**, of TCMR, VIBE and GLoT: `python pipelines/import_features.py --dataset 3dpw --split test --src
    3dpw_test_db.pt`

    **HMR2.0's features**, of WHAM and of GVHMR: `--src 3dpw_train_vit.pth`, or `--dataset 3dpw --split test --src
    imgfeats/3dpw_test --labels test_3dpw_gt_labels.pt`. Those of the two are cropped differently, so a model that is
    trained with one of them refuses the other.

    Nothing in a file is executed. A file that needs anything but arrays is refused, and the message says what it needs.
    An interrupted import continues where it stopped. Rows and videos that cannot be used are left out and listed in
    manifest.json; the exit code is then 1, unless `--allow-skips` is given.
    """
    from pipelines.imports.importing import import_file

    manifest = import_file(spec)
    return 1 if manifest.skipped and not spec.allow_skips else 0


def command() -> None:
    """Entry point of ``glot-import``."""
    cli.run(main)


if __name__ == "__main__":
    command()
