"""The command that renders the open sample dataset."""

from glot import cli
from pipelines.scenes.spec import MakeSampleSpec


def main(spec: MakeSampleSpec) -> None:
    """Make a synthetic video dataset in 3DPW's layout, to run the whole pipeline without a licence or a download.

    It renders about 3,400 pictures in two minutes on two cores. Look at OUT/contact_sheet.jpg, then run:

    `python pipelines/extract_features.py --dataset 3dpw --root OUT --split train --out features`

    With --bench and a folder of motions, such as CMU's, it makes a large dataset in a few hours: about 120,000 rows to
    train on, and 20,000 of people who are not among them. A run that was killed is continued by the same command.
    `python pipelines/make_sample.py --bench --motions MOTIONS --out OUT`
    """
    from pipelines.scenes.sample_dataset import make_sample

    sample = make_sample(spec)
    print(
        f"{spec.out}: {len(sample.sequences)} sequences, {sample.pictures} pictures; "
        f"see {spec.out / 'contact_sheet.jpg'}"
    )


def command() -> None:
    """Entry point of ``glot-make-sample``."""
    cli.run(main)


if __name__ == "__main__":
    command()
