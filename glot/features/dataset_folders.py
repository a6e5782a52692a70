"""A dataset's name in; its folder in $GLOT_HOME/data, and the command that makes the folder, out.

data/sample, the open dataset that make_sample renders, has the layout of 3DPW. It counts as 3dpw where there is no
data/3dpw.
"""

import shlex
from pathlib import Path

from glot.home import data_folder, features_folder

SAMPLE = "sample"  # folder in data/
SAMPLE_DATASET = "3dpw"
SAMPLE_FILE = "sample.json"  # make_sample writes it last
MAKE_SAMPLE = "python pipelines/make_sample.py"


def is_sample(root: Path) -> bool:
    """Whether the folder is a sample that make_sample has finished. The people in a sample have the open body."""
    return (root / SAMPLE_FILE).is_file()


def dataset_folder(dataset: str) -> Path:
    """data/DATASET, which may be missing; or data/sample where the sample counts as the dataset."""
    folder, sample = data_folder() / dataset, data_folder() / SAMPLE
    return sample if dataset == SAMPLE_DATASET and not folder.is_dir() and is_sample(sample) else folder


def command_for(dataset: str) -> str:
    """The command that makes the dataset's folder where it is missing."""
    if dataset == SAMPLE_DATASET:
        return MAKE_SAMPLE
    return f"ln -s /path/to/{dataset} {dataset_folder(dataset).absolute()}"


def extraction_commands(dataset: str, features: Path, *, sample: bool = True, options: str = "") -> list[str]:
    """The commands that make the dataset's feature sets in ``features``.

    With ``sample``, 3dpw is the rendered sample where there is no data/3dpw; it is rendered first where it is missing.
    """
    out = options + ("" if features == features_folder() else f" --out {shlex.quote(str(features))}")
    if not sample or dataset != SAMPLE_DATASET or (data_folder() / dataset).is_dir():
        return [f"python pipelines/extract_features.py --dataset {shlex.quote(dataset)}{out}"]
    render = [] if (data_folder() / SAMPLE).is_dir() else [MAKE_SAMPLE]
    return [*render, f"python pipelines/extract_features.py{out}"]
