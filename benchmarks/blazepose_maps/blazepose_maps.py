"""BlazePose's landmarks with the last maps of its landmark network, as a backbone that is installed beside the project.

A feature holds the 312 numbers of ``--backbone blazepose``, then the means of the four quarters of the last map of
4 x 4 cells, then the last map of 2 x 2 cells: 312 + 4 C + 4 C numbers, C = 288 in the networks full and heavy.

Source: the .tflite files of mediapipe 0.10.21 and of the npm package @mediapipe/holistic 0.5.1675471629 (Apache-2.0).
"""

import hashlib
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as tflite
from numpy.typing import NDArray

from glot.features.backbones.backbone import Backbone
from glot.features.backbones.backbone import Network as Extract
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind
from glot.features.backbones.blazepose import (
    FEATURES,
    LANDMARK_SIZE,
    Network,
    features_hash,
    landmark_features,
    landmark_heads,
)
from glot.features.backbones.blazepose_features import load as load_blazepose
from glot.human.crop_rules import CropRule

KIND = BackboneKind(
    name="blazepose_maps",
    summary="BlazePose's landmarks with the last maps of its network, for probes",
    load="blazepose_maps:load",
    weights="another landmark network of BlazePose, such as pose_landmark_heavy.tflite",
    devices=("cpu",),
)
CELLS = (4, 2)  # sides of the maps


def last_maps(content: bytes) -> dict[int, tuple[int, int]]:
    """{side: (tensor's number, channels)} of the last sums of two maps that have the sides CELLS."""
    model: Any = tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(content, 0))
    (graph,) = model.subgraphs
    found: dict[int, tuple[int, int]] = {}
    for operator in graph.operators:
        shape = [int(size) for size in graph.tensors[operator.outputs[0]].shape]
        is_sum = model.operatorCodes[operator.opcodeIndex].builtinCode == tflite.BuiltinOperator.ADD
        if is_sum and len(shape) == 4 and shape[1] == shape[2] and shape[1] in CELLS:
            found[shape[1]] = (int(operator.outputs[0]), shape[3])
    return found


def quarters(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """(4, 4, C) -> (4 C,): the means of the quarters, from left to right, then from top to bottom."""
    side, channels = cells.shape[0] // 2, cells.shape[2]
    means: NDArray[np.float32] = cells.reshape(2, side, 2, side, channels).mean((1, 3)).reshape(-1)
    return means


class BlazePoseMaps(Backbone):
    """Both run on one thread, in float32."""

    def __init__(self, kind: BackboneKind, content: bytes, *, weights_name: str) -> None:
        self.content, self.maps = content, last_maps(content)
        super().__init__(
            kind,
            weights_name=weights_name,
            hash=hashlib.sha256(f"{features_hash(content)} last maps".encode()).hexdigest()[:16],
            feature_size=FEATURES + 4 * sum(channels for _, channels in self.maps.values()),
            crop_rule=CropRule(size=LANDMARK_SIZE),
        )

    def network(self, *, device: str, precision: str) -> Extract:
        maps = tuple(self.maps[side][0] for side in CELLS)
        run = Network(self.content, (*landmark_heads(self.content), *maps), threads=1)

        def extract(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
            found = [run(crop.astype(np.float32) / 255) for crop in crops]
            points, _, metres, *maps = (np.array(output, np.float32) for output in zip(*found, strict=True))
            large, small = maps
            pooled = [np.stack([quarters(cells) for cells in large]), small.reshape(len(crops), -1)]
            return np.concatenate([landmark_features(points, metres), *pooled], axis=1)

        return extract


def load(choice: BackboneChoice) -> BlazePoseMaps:
    """With the landmark network of ``--weights``, by default mediapipe's pose_landmark_full.tflite."""
    chosen = load_blazepose(choice)
    return BlazePoseMaps(choice.kind, chosen.content, weights_name=chosen.weights_name)
