"""The feature files of each dataset: joint orders, frame rates, crops, names of pictures. Imports nothing heavy."""

import re
from dataclasses import dataclass
from pathlib import Path

from glot.human.joints import COMMON14, SPIN49
from pipelines.decoders.dataset_facts import HUMAN36M17, INSTA25, STORED_CROP_SCALE

TCMR_CROP_SCALE = 1.2  # crop scale of TCMR's features, except those of 3DPW and PoseTrack


@dataclass(frozen=True)
class Layout:
    """The files of one dataset."""

    fps: float
    crop_scale: float  # crop scale of the features, if the file's name does not contain it
    joints2d: tuple[tuple[str, ...], ...] = (SPIN49, COMMON14)  # possible orders; their lengths tell them apart
    known3d: tuple[str, ...] = HUMAN36M17  # the joints of joints3D that are measured
    first_frame: int = 0  # the number of the first frame in the names of pictures
    images: str = ""  # pattern of the first folders of a picture's path, below the dataset's root
    joints3d: tuple[tuple[str, ...], ...] = (SPIN49, COMMON14)  # possible orders, as of joints2d
    needs: tuple[str, ...] = ("vid_name", "features", "joints2D", "bbox")  # columns that no file lacks
    feature_size: int | None = None  # None: any
    halves: bool = False  # whether features of type float16 are stored as such; else as float32
    whole_names: bool = False  # whether names of tracks may have slashes; else they are paths of another machine


LAYOUTS = {
    "3dpw": Layout(30.0, 1.3, known3d=SPIN49, images="imageFiles/"),
    # Every second frame was kept: frame_id goes 0, 2, 4 at 50 frames per second.
    "human36m": Layout(50.0, TCMR_CROP_SCALE, images="images/"),
    "mpi_inf_3dhp": Layout(25.0, TCMR_CROP_SCALE, first_frame=1, images=r"S\d+/Seq\d+/|mpi_inf_3dhp_test_set/"),
    # The files have the common joint order. The code that reads them assumes another order and takes ankles for heads.
    "penn_action": Layout(30.0, TCMR_CROP_SCALE, first_frame=1, images="frames/"),
    "posetrack": Layout(25.0, 1.3, images="images/"),
    "insta_variety": Layout(30.0, STORED_CROP_SCALE, joints2d=(INSTA25,), needs=("vid_name", "features", "joints2D")),
}


def crop_scale_of(path: Path, dataset: str) -> float:
    """The crop scale of the features in a file, from its name: "scale12" is 1.2, "scale1" and "tight" are 1."""
    if dataset == "insta_variety":
        return STORED_CROP_SCALE
    if found := re.search(r"_scale(\d)(\d?)_", path.name):
        return int(found[1]) + int(found[2] or 0) / 10
    return 1.0 if "_tight" in path.name else LAYOUTS[dataset].crop_scale
