"""Before extraction in int8 or bfloat16: crops for calibration, the int8 network, and how much features change."""

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

SAMPLED_UNITS, SAMPLED_FRAMES = 16, 4  # numbers of sources, and of frames of each source, that calibration uses
LOOKED_AT = 3000  # rows at the start of a source from which the frames are; a video must be decoded up to them


def sample_crops(decoder: Decoder, root: Path, units: Sequence[Unit], body: Body) -> NDArray[np.uint8]:
    """Crops (N, 224, 224, 3) for calibration: of the first person in some of the units, at equal intervals.

    InputError if there is no crop.
    """
    found: list[NDArray[np.uint8]] = []
    for index in sorted({round(i) for i in np.linspace(0, len(units) - 1, SAMPLED_UNITS)} if units else ()):
        try:
            clips = decoder.decode(root, units[index], body, "corrected").clips
        except InputError:  # extraction will report it
            continue
        spread = [clip.take(_spread(len(clip))) for clip in clips[:1]]
        found += [crop for frame in islice(read_crops(root, spread), SAMPLED_FRAMES) for crop in frame.crops or ()]
    if not found:
        raise InputError(
            f"{root}: none of its pictures shows a person and can be read, so there is nothing to calibrate on"
        )
    return np.stack(found)


def _spread(rows: int) -> NDArray[np.int64]:
    """SAMPLED_FRAMES rows at equal intervals."""
    return np.unique(np.linspace(0, min(rows, LOOKED_AT) - 1, SAMPLED_FRAMES).astype(np.int64))


def int8_network(backbone: Backbone, crops: NDArray[np.uint8], out: Path) -> Path:
    """The file in ``out`` with the backbone in int8. If there is no such file, it is made, calibrated on ``crops``.

    All sets in ``out`` share it, because features of different calibrations must not be mixed.
    """
    path = out / f"{backbone.name}-{backbone.hash}-int8.onnx"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_whole(path, quantised(onnx_of(backbone), crops))
    return path


def hash_of(backbone: Backbone, network: bytes) -> str:
    """16 hex digits that identify the backbone's weights and, if ``network`` is not empty, the int8 network."""
    return hashlib.sha256(backbone.hash.encode() + network).hexdigest()[:16] if network else backbone.hash


def describe_deviation(backbone: Backbone, crops: NDArray[np.uint8], *, precision: str, network: bytes) -> str:
    """A line that says how much the precision changes the features of ``crops``."""
    error = deviation(Extractor(backbone), Extractor(backbone, precision=precision, network=network), crops)
    what = f"{precision}: features of {len(crops)} sampled crops differ from their float32 features by {error:.1e}"
    return f"{what}, relative to how much features differ between crops"
