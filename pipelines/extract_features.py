"""The command that extracts feature sets: datasets of pictures in, Parquet with features and labels out."""

from glot import cli
from pipelines.extraction.datasets import chosen_datasets
from pipelines.extraction.spec import ExtractSpec


def main(spec: ExtractSpec) -> int:
    """Extract per-frame features and labels from video datasets, as a Ray Data job.

    **Example**: `python pipelines/extract_features.py --dataset 3dpw --root data/3dpw --split all --out features`

    **Without options** it extracts every dataset in `$GLOT_HOME/data`, one after the other. A folder there is named
    after its dataset; `data/sample`, which make_sample renders, counts as 3dpw if there is no `data/3dpw`.

    After an interruption, run the same command again: it continues, and it tells you if everything is done. With
    RAY_ADDRESS set, or under `ray job submit`, it joins that cluster; otherwise it starts a local Ray. Pictures and
    sequences that cannot be read are skipped and named in manifest.json; the exit code is then 1, unless you give
    `--allow-skips`. Exit code 75 means that something failed that may succeed later: run the same command again.

    **The manifest** of a set says how it was made. A folder with a set of other settings is refused, whether the set is
    finished or not. So `--preprocessing reference`, `--occluders` and `--jitter` each need a separate `--out`.
    """
    datasets = chosen_datasets(spec)
    from pipelines.extraction.job import extract_all

    return extract_all(datasets)


def command() -> None:
    """Entry point of ``glot-extract``."""
    cli.run(main)


if __name__ == "__main__":
    command()
