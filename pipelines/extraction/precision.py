"""The backbone of an extraction; before one in int8 or bfloat16: crops for calibration, the int8 network, and how much
features change.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.extractor import Extractor, deviation
from glot.features.backbones.resnet50_backbone import ResNet50
from glot.human.body import Body
from glot.human.crop_rules import CropRule
from glot.location import write_whole
from pipelines.decoders.clips import Decoder, Unit
from pipelines.decoders.frames import read_crops, with_rule
from pipelines.extraction.spec import ExtractSpec

SAMPLED_UNITS, SAMPLED_FRAMES = 16, 4  # numbers of sources, and of frames of each source, that calibration uses
LOOKED_AT = 3000  # rows at the start of a source from which the frames are; a video must be decoded up to them


def load_for(spec: ExtractSpec, int8_network: Path | None = None) -> Backbone:
    """The backbone of an extraction, with its network for int8 where it has one."""
    backbone = load_backbone(spec.backbone, spec.weights, crop_rule=spec.crop_rule, first_guess=spec.first_guess)
    if int8_network is None:
        return backbone
    assert isinstance(backbone, ResNet50), f"{backbone.name} has no int8"
    return backbone.with_int8(int8_network.read_bytes())


def sample_crops(decoder: Decoder, root: Path, units: Sequence[Unit], body: Body, rule: CropRule) -> NDArray[np.uint8]:
    """Crops (N, S, S, 3) for calibration: of the first person in some of the units, at equal intervals.

    InputError if there is no crop.
    """
    found: list[NDArray[np.uint8]] = []
    for index in sorted({round(i) for i in np.linspace(0, len(units) - 1, SAMPLED_UNITS)} if units else ()):
        try:
            clips = decoder.decode(root, units[index], body, "corrected").clips
        except InputError:  # extraction will report it
            continue
        spread = [with_rule(clip.take(_spread(len(clip))), rule, is_cropped=decoder.is_cropped) for clip in clips[:1]]
        frames = islice(read_crops(root, spread, rule=rule), SAMPLED_FRAMES)
        found += [crop for frame in frames for crop in frame.crops or ()]
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
        assert isinstance(backbone, ResNet50), f"{backbone.name} has no int8"
        write_whole(path, backbone.int8_network(crops))
    return path


def describe_deviation(backbone: Backbone, crops: NDArray[np.uint8], *, precision: str) -> str:
    """A line that says how much the precision changes the features of ``crops``."""
    error = deviation(Extractor(backbone), Extractor(backbone, precision=precision), crops)
    what = f"{precision}: features of {len(crops)} sampled crops differ from their float32 features by {error:.1e}"
    return f"{what}, relative to how much features differ between crops"
