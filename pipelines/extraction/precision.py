"""What a precision other than float32 needs before the work starts: crops to calibrate on, and how far off it is."""

import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone
from glot.features.backbones.extractor import Extractor, deviation, onnx_of
from glot.features.backbones.onnx_network import quantised
from glot.human.body import Body
from glot.location import write_whole
from pipelines.decoders.clips import Decoder, Unit
from pipelines.decoders.frames import read_crops

UNITS, FRAMES = 16, 4  # so many frames of so many units


def sample_crops(decoder: Decoder, root: Path, units: Sequence[Unit], body: Body) -> NDArray[np.uint8]:
    """(N, 224, 224, 3) crops of the first people in some units, spread over all; InputError where there are none."""
    found: list[NDArray[np.uint8]] = []
    for index in sorted({round(i) for i in np.linspace(0, len(units) - 1, UNITS)} if units else ()):
        try:
            clips = decoder.decode(root, units[index], body, "corrected").clips
        except InputError:  # extraction will say it
            continue
        spread = [clip.take(np.unique(np.linspace(0, len(clip) - 1, FRAMES).astype(int))) for clip in clips[:1]]
        found += [crop for frame in islice(read_crops(root, spread), FRAMES) for crop in frame.crops or ()]
    if not found:
        raise InputError(f"{root}: no person in any picture that could be read, so there is nothing to calibrate on")
    return np.stack(found)


def int8_network(backbone: Backbone, crops: NDArray[np.uint8], out: Path) -> Path:
    """The file below ``out`` with the backbone in int8, made of ``crops`` if it is not there. One for all the sets of a
    folder, however they were made: features of different calibrations do not go together."""
    path = out / f"{backbone.name}-{backbone.hash}-int8.onnx"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_whole(path, quantised(onnx_of(backbone), crops))
    return path


def hash_of(backbone: Backbone, network: bytes) -> str:
    """16 hex digits: of the backbone's weights, or of these and the int8 network."""
    return hashlib.sha256(backbone.hash.encode() + network).hexdigest()[:16] if network else backbone.hash


def how_far_off(backbone: Backbone, crops: NDArray[np.uint8], *, precision: str, network: bytes) -> str:
    """What the precision costs, in words."""
    off = deviation(Extractor(backbone), Extractor(backbone, precision=precision, network=network), crops)
    what = f"{precision}: features of {len(crops)} of these pictures are {off:.1e} off those of float32"
    return f"{what}, by the norm of what differs between pictures"
