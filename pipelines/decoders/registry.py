"""The name of a dataset in; its splits and its decoder out.

Nothing heavy is imported until ``load_decoder`` is called. A new dataset gets a module in this room and a line here.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pipelines.decoders.clips import Decoder

VIDEO = "video"  # videos of any kind, with boxes from a file


class Dataset(NamedTuple):
    """Where a dataset's decoder is, and the decoder's splits."""

    module: str  # in this room
    decoder: str  # the module's Decoder
    splits: tuple[str, ...]


DATASETS = {
    "3dpw": Dataset("threedpw", "THREEDPW", ("train", "validation", "test")),
    "human36m": Dataset("human36m", "HUMAN36M", ("train", "test", "test_front")),
    "insta_variety": Dataset("insta_variety", "INSTA_VARIETY", ("train", "test")),
    "mpi_inf_3dhp": Dataset("mpi_inf_3dhp", "MPI_INF_3DHP", ("train", "test")),
    "penn_action": Dataset("penn_action", "PENN_ACTION", ("train", "test")),
    "posetrack": Dataset("posetrack", "POSETRACK", ("train", "validation")),
    VIDEO: Dataset("video_dataset", "VIDEO", ("test",)),
}


def load_decoder(dataset: str, tracks: Path | None = None) -> "Decoder":
    """The decoder of a dataset in DATASETS. ``tracks``: the file or folder of boxes, for videos only."""
    entry = DATASETS[dataset]
    module = import_module(f"pipelines.decoders.{entry.module}")
    decoder: Decoder = module.video_decoder(tracks) if dataset == VIDEO else getattr(module, entry.decoder)
    return decoder
