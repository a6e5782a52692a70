"""Files of features of HMR2.0 that WHAM and GVHMR made: which are which, and what each dataset's look like.

Imports nothing heavy.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from glot.human.joints import COMMON14
from pipelines.imports.layouts import Layout

FEATURES = 1024  # numbers of HMR2.0's token

# COCO's 17 joints.
COCO17 = (
    "nose", "leye", "reye", "lear", "rear", "lshoulder", "rshoulder", "lelbow", "relbow", "lwrist", "rwrist", "lhip",
    "rhip", "lknee", "rknee", "lankle", "rankle",
)  # fmt: skip
# WHAM's body has 31 joints: COCO17, then COMMON14. The limbs are in it twice; here they are taken from the second part,
# which WHAM itself compares with the joints of Human3.6M.
FACE = COCO17[:5]
WHAM31_PICKED = (*range(5), *range(17, 31))
WHAM19 = (*FACE, *COMMON14)


@dataclass(frozen=True)
class Cache:
    """Who made the features, and how."""

    rule: str  # the crop rule of the backbone hmr2
    weights: str  # for the manifest, where the user does not give them


CACHES = {
    "wham": Cache("wham", "hmr2a.ckpt, as WHAM used it"),
    "gvhmr": Cache("gvhmr", "epoch=10-step=25000.ckpt, as GVHMR used it"),
}


def _layout(fps: float, *, boxes: bool = True) -> Layout:
    return Layout(
        fps,
        crop_scale=1.0,  # their boxes are the crops
        joints2d=(COMMON14, COCO17, WHAM19),
        joints3d=(COMMON14, WHAM19),
        known3d=WHAM19,
        needs=("vid_name", "features", "bbox") if boxes else ("vid_name", "features"),
        feature_size=FEATURES,
        halves=True,
        whole_names=True,
    )


HMR2_LAYOUTS = {
    "3dpw": _layout(30.0),
    "human36m": _layout(25.0),  # if frame_id goes 0, 2, 4, it counts 50 frames per second
    "mpi_inf_3dhp": _layout(25.0),
    "insta_variety": _layout(30.0, boxes=False),  # the pictures are crops already
    "emdb": _layout(30.0),
    "rich": _layout(30.0),
    "bedlam": _layout(30.0),
}

# Names of WHAM's files. Its own scripts write 3pdw for 3dpw.
_WHAM_NAME = re.compile(r"(3dpw|3pdw|human36m|mpii3d|insta|emdb|rich)_(train|val|test|1|2)_vit\.pth")
_DATASETS = {"3pdw": "3dpw", "mpii3d": "mpi_inf_3dhp", "insta": "insta_variety"}
_SPLITS = {"val": "validation", "1": "test", "2": "test"}
HEAD_BYTES = 1 << 20


def set_of_name(path: Path) -> tuple[str, str]:
    """(dataset, split) of a file with one of WHAM's names; ("", "") for another name."""
    found = _WHAM_NAME.fullmatch(path.name)
    if not found:
        return "", ""
    return _DATASETS.get(found[1], found[1]), _SPLITS.get(found[2], found[2])


def cache_of(path: Path) -> str:
    """Which of CACHES a file or folder is; "" for a feature file of TCMR, VIBE or GLoT, and for what is not there."""
    if path.is_dir():
        return "gvhmr"
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith((b"PK", b"\x80\x02\x8a\nl\xfc\x9cF\xf9")):  # files of torch.save, today's and old ones
        return "gvhmr"
    # The first tensor of a file of WHAM comes soon, and with it the name of the function that makes it.
    return "wham" if _WHAM_NAME.fullmatch(path.name) or b"_rebuild_tensor_v2" in head else ""
