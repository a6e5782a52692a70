"""A dataset's name in; its folder in $GLOT_HOME/data, and the command that makes the folder, out.

data/sample, the open dataset that make_sample renders, has the layout of 3DPW. It counts as 3dpw where there is no
data/3dpw.
"""

from pathlib import Path

from glot.home import data_folder

SAMPLE = "sample"  # folder in data/
SAMPLE_DATASET = "3dpw"
SAMPLE_FILE = "sample.json"  # make_sample writes it last
MAKE_SAMPLE = "python pipelines/make_sample.py"


def is_sample(root: Path) -> bool:
    """Whether make_sample rendered the folder, and finished it. Its people have the open body."""
    return (root / SAMPLE_FILE).is_file()


def dataset_folder(dataset: str) -> Path:
    """data/DATASET, which may be missing; or data/sample where it counts as the dataset."""
    folder, sample = data_folder() / dataset, data_folder() / SAMPLE
    return sample if dataset == SAMPLE_DATASET and not folder.is_dir() and is_sample(sample) else folder


def command_for(dataset: str) -> str:
    """The command that makes the dataset's folder where it is missing."""
    if dataset == SAMPLE_DATASET:
        return MAKE_SAMPLE
    return f"ln -s /path/to/{dataset} {dataset_folder(dataset).absolute()}"
