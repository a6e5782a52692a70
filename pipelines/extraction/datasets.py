"""The options of extract_features in; one complete spec for each dataset out, with the folders of $GLOT_HOME filled in.

Nothing heavy is imported here, so that missing files are reported at once.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import is_weights_file, needed_weights, weights_at_home
from glot.features.dataset_folders import MAKE_SAMPLE, SAMPLE, SAMPLE_DATASET, command_for, dataset_folder, is_sample
from glot.home import body_folder, data_folder, missing_error
from pipelines.decoders.registry import DATASETS
from pipelines.extraction.spec import ALL_SPLITS, ExtractSpec
from pipelines.jobs.job_progress import say


@dataclass(frozen=True, kw_only=True)
class DatasetSpec(ExtractSpec):
    """One dataset to extract: an ExtractSpec with a dataset and a root. Paths are absolute, except --occluders.

    ``body`` and ``weights`` are None for the open body and the open weights.
    """

    dataset: str = field()
    root: Path = field()


def chosen_datasets(spec: ExtractSpec) -> list[DatasetSpec]:
    """The dataset of --dataset, or all those in $GLOT_HOME/data that have the split.

    Prints which files it takes from $GLOT_HOME. Raises InputError where there is no dataset; the message has the
    command that makes one.
    """
    if spec.dataset is None:
        return [_completed(spec, dataset, root) for dataset, root in _all_at_home(spec.split).items()]
    return [_completed(spec, spec.dataset, spec.root or _root_at_home(spec.dataset))]


def _root_at_home(dataset: str) -> Path:
    root = dataset_folder(dataset)
    if not root.is_dir():
        sample = f" or {data_folder() / SAMPLE}" if dataset == SAMPLE_DATASET else ""
        raise missing_error([(f"--dataset {dataset}: no folder {root}{sample}, and no --root", command_for(dataset))])
    if root.name == SAMPLE:
        say(f"{root}: the rendered sample is in 3DPW's layout and is extracted as {SAMPLE_DATASET}")
    return root


def _all_at_home(split: str) -> dict[str, Path]:
    """{dataset: root} of the datasets in $GLOT_HOME/data that have the split."""
    present = [dataset for dataset in DATASETS if dataset_folder(dataset).is_dir()]
    if not present:
        names = f"{', '.join(DATASETS)}; or {SAMPLE}, an open dataset that is rendered"
        raise missing_error(
            [(f"{data_folder()}: no folder of a dataset in it ({names}). For the sample:", MAKE_SAMPLE)]
        )
    chosen = [dataset for dataset in present if split == ALL_SPLITS or split in DATASETS[dataset].splits]
    if not chosen:
        raise InputError(f"--split {split}: {data_folder()} holds {', '.join(present)}, which have no such split")
    return {dataset: _root_at_home(dataset) for dataset in chosen}


def _completed(spec: ExtractSpec, dataset: str, root: Path) -> DatasetSpec:
    """The spec with the body and the weights of $GLOT_HOME filled in, if they exist; not for the rendered sample."""
    body, weights, from_home = spec.body, needed_weights(spec.choice), []
    if not is_sample(root):
        if body is None and (body := body_folder()) is not None:
            from_home.append(f"the body {body}")
        if weights is None:
            weights = weights_at_home(spec.choice.kind)
    if weights is not None and weights != spec.weights:
        from_home.append(f"the weights {weights}")
    if from_home:
        say(f"{dataset}: uses {' and '.join(from_home)} of $GLOT_HOME")
    options = {option.name: getattr(spec, option.name) for option in fields(spec)}
    paths = {"root": root, "out": spec.out, "body": body, "tracks": spec.tracks}
    if is_weights_file(weights):
        paths["weights"] = weights
    absolute = {name: path and path.absolute() for name, path in paths.items()}
    return DatasetSpec(**{**options, "dataset": dataset, "backbone": spec.choice.absolute_name, **absolute})
