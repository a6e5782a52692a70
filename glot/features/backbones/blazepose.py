"""BlazePose on a CPU: pictures in, boxes of people out; crops of people in, 33 landmarks and a feature vector out.

N crops, n people. Source: Bazarevsky et al., BlazePose, 2020, and the graphs of mediapipe 0.10.21
(modules/pose_detection, modules/pose_landmark), whose constants are kept.
"""

import hashlib
from typing import Any, NamedTuple

import cv2
import numpy as np
from ai_edge_litert import schema_py_generated as tflite
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import Builder
from numpy.typing import NDArray

from glot.features.backbones.blazepose_files import DETECTION_FILE, LANDMARK_FILE, SHA256, network_file
from glot.library_log import without_lines

LANDMARK_SIZE = 256  # px, side of the crops that the landmark network takes
LANDMARKS = 33
DETECTOR_SIZE = 224
LEAST_SCORE = 0.6  # lowest score of a detection; with mediapipe's 0.5, table legs are detected as people
MOST_OVERLAP = 0.3  # two detections with a larger intersection over union are the same person
# (side of a cell in px, anchors in a cell) of each layer; the last entry stands for three layers with the same cells.
ANCHORS = ((8, 2), (16, 2), (32, 6))
BOXES, SCORES = 441, 429  # numbers of tensors in the detector's file (glot.features.backbones.blazepose_files)
POINTS = 39  # 33 landmarks, and 6 points that help to place the next crop
# The outputs of a landmark network that are used, by their shapes: the points with their logits, whether there is a
# person, and the points in metres.
HEADS = ((1, 5 * POINTS), (1, 1), (1, 3 * POINTS))
FEATURES = 5 * POINTS + 3 * POINTS
# A feature holds UNITS * (x, y, z, two logits) - ORIGIN of each point: x, y and z in units of half the crop's side, x
# and y from the middle of the crop, logits divided by 10.
UNITS = np.array([1 / 128, 1 / 128, 1 / 128, 0.1, 0.1], np.float32)
ORIGIN = np.array([1, 1, 0, 0, 0], np.float32)
NOTICE = "XNNPACK delegate"  # what LiteRT prints about the way in which a network runs
FEATURE_RULE = "x/128-1 y/128-1 z/128 logits/10; 4 x metres"


class Detections(NamedTuple):
    """People in a picture, highest score first: ``boxes`` (n, 4) left, top, width, height in px, ``scores`` (n,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


class LandmarkOutput(NamedTuple):
    """What the landmark network finds in N crops of 256 px.

    ``landmarks``: x, y and z in px of the crop. z is the depth relative to the hips, negative towards the camera.
    """

    landmarks: NDArray[np.float32]  # (N, 33, 3)
    visibility: NDArray[np.float32]  # (N, 33), 0 to 1
    presence: NDArray[np.float32]  # (N,), 0 to 1: whether there is a person in the crop
    features: NDArray[np.float32]  # (N, 312)


class Detector:
    """Finds people: ``detector(frame (H, W, 3) uint8 RGB) -> Detections``. Boxes are squares around the whole body.

    The network is made for one person close by, and its input is 224 px wide: it misses people who are smaller than
    about a quarter of the picture. With ``tiles`` it also runs on overlapping squares of the picture: ``tiles`` squares
    along the longer side.
    """

    def __init__(self, *, tiles: int = 0, threads: int = 1) -> None:
        self._network = Network(network_file(DETECTION_FILE), (BOXES, SCORES), threads=threads)
        self._anchors = anchors() * DETECTOR_SIZE
        self._tiles = tiles

    def __call__(self, frame_rgb: NDArray[np.uint8]) -> Detections:
        height, width = frame_rgb.shape[:2]
        longer = max(height, width)
        views = [((width - longer) / 2, (height - longer) / 2, float(longer))]
        if self._tiles:
            views += squares(width, height, self._tiles)
        found = [self._detect(frame_rgb, *view) for view in views]
        boxes, scores = (np.concatenate(values) for values in zip(*found, strict=True))
        kept = suppressed(boxes, scores)
        return Detections(boxes[kept].astype(np.float32), scores[kept].astype(np.float32))

    def _detect(self, frame: NDArray[np.uint8], left: float, top: float, side: float) -> tuple[NDArray, NDArray]:
        """Boxes and scores of the people in a square of the picture; black beyond its edges."""
        scale = DETECTOR_SIZE / side
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        picture = cv2.warpAffine(frame, matrix, (DETECTOR_SIZE, DETECTOR_SIZE), flags=cv2.INTER_AREA)
        raw, logits = self._network(picture.astype(np.float32) / 127.5 - 1)
        scores = _sigmoid(logits[:, 0])
        sure = scores >= LEAST_SCORE
        points = raw[sure, 4:].reshape(-1, 4, 2) + self._anchors[sure, None]
        return _around(points / scale + (left, top)), scores[sure]


class Landmarks:
    """Finds landmarks: ``landmarks(crops (N, 256, 256, 3) uint8 RGB) -> LandmarkOutput``.

    ``content``: that of a .tflite file with the network, by default mediapipe's pose_landmark_full.tflite, which is
    fetched the first time; ValueError for another file. pose_landmark_heavy.tflite and lite have the same outputs.

    The network runs on one crop at a time, so that results do not depend on the batch. A feature holds all outputs of
    the network: the landmarks in the crop with their logits, and the landmarks in metres, scaled to vary about as much.
    The maps of its inner layers are left out. With them, the linear probe is 1 mm better on renders, but they differ so
    much between renders and photographs that a model trained on renders turned people in photographs sideways.
    """

    def __init__(self, content: bytes | None = None, *, threads: int = 1) -> None:
        content = network_file(LANDMARK_FILE) if content is None else content
        self._network = Network(content, landmark_heads(content), threads=threads)

    def __call__(self, crops: NDArray[np.uint8]) -> LandmarkOutput:
        if crops.ndim != 4 or crops.shape[1:] != (LANDMARK_SIZE, LANDMARK_SIZE, 3) or crops.dtype != np.uint8:
            raise ValueError(f"crops must be (N, 256, 256, 3) uint8, got {crops.shape} {crops.dtype}")
        if not len(crops):
            return LandmarkOutput(
                *(np.zeros((0, *s), np.float32) for s in ((LANDMARKS, 3), (LANDMARKS,), (), (FEATURES,)))
            )
        outputs = [self._network(crop.astype(np.float32) / 255) for crop in crops]
        points, presence, metres = (np.array(output, np.float32) for output in zip(*outputs, strict=True))
        landmarks = points.reshape(-1, POINTS, 5)[:, :LANDMARKS]
        return LandmarkOutput(
            landmarks[..., :3], _sigmoid(landmarks[..., 3]), presence.reshape(-1), landmark_features(points, metres)
        )


def landmark_features(points: NDArray[np.float32], metres: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's outputs, points (N, 195) in px and logits and points (N, 117) in metres -> features (N, 312)."""
    scaled = points.reshape(-1, POINTS, 5) * UNITS - ORIGIN
    return np.concatenate([scaled.reshape(len(points), -1), 4 * metres.reshape(len(points), -1)], axis=1)


class Network:
    """A .tflite file cut down to some of its tensors: ``network(x (H, W, C) float32)`` -> the tensors ``outputs``.

    These tensors come without the batch axis, and may be outputs of inner layers. Operators that only other outputs
    need (segmentation, heatmaps) do not run.
    """

    def __init__(self, content: bytes, outputs: tuple[int, ...], *, threads: int) -> None:
        with without_lines(NOTICE):
            self._interpreter = Interpreter(model_content=cut(content, outputs), num_threads=threads)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [details["index"] for details in self._interpreter.get_output_details()]

    def __call__(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self._interpreter.set_tensor(self._input, x[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def landmark_heads(content: bytes) -> tuple[int, ...]:
    """The numbers of the tensors HEADS in a landmark network of BlazePose; ValueError, with the reason, for others."""
    try:
        (graph,) = _model(content).subgraphs
        tensors = [tuple(int(size) for size in tensor.shape) for tensor in graph.tensors]
        inputs, outputs = (
            [(tensors[number], int(number)) for number in ends] for ends in (graph.inputs, graph.outputs)
        )
    except Exception as error:  # flatbuffers has no errors of its own: a damaged file raises whatever it leads to
        raise ValueError(f"cannot be read as a .tflite file ({error})") from None
    if [shape for shape, _ in inputs] != [(1, LANDMARK_SIZE, LANDMARK_SIZE, 3)]:
        raise ValueError(f"takes {[shape for shape, _ in inputs]}, not one crop of {LANDMARK_SIZE} px")
    found = dict(outputs)
    if missing := [head for head in HEADS if head not in found]:
        raise ValueError(f"has no output of the shape {missing[0]}")
    return tuple(found[head] for head in HEADS)


def _model(content: bytes) -> Any:
    if content[4:8] != b"TFL3":
        raise ValueError("it begins with other bytes")
    return tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(content, 0))


def cut(content: bytes, outputs: tuple[int, ...]) -> bytes:
    """The .tflite file with these tensors as its outputs, and only the operators that they need."""
    model = _model(content)
    (graph,) = model.subgraphs
    needed, operators = set(outputs), []
    for operator in reversed(graph.operators):
        if needed & set(operator.outputs):
            needed |= set(operator.inputs)
            operators.append(operator)
    graph.operators, graph.outputs = operators[::-1], list(outputs)
    model.signatureDefs = None  # signatures name outputs that do not exist any more
    builder = Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def anchors() -> NDArray[np.float64]:
    """(2254, 2) x, y of the anchors' centres as fractions of the input's side, in the order of the network's rows."""
    layers = []
    for stride, count in ANCHORS:
        centres = (np.arange(DETECTOR_SIZE // stride) + 0.5) * stride / DETECTOR_SIZE
        y, x = np.meshgrid(centres, centres, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), count, axis=0))
    return np.concatenate(layers)


def squares(width: int, height: int, count: int) -> list[tuple[float, float, float]]:
    """(left, top, side) of squares that cover the picture and overlap by half.

    There are ``count`` of them along the longer side. None is wider than the picture's shorter side.
    """
    longer, shorter = max(width, height), min(width, height)
    side = min(2 * longer / (count + 1), float(shorter))
    along = np.linspace(0, longer - side, count)
    across = np.linspace(0, shorter - side, 1 + int(np.ceil(2 * (shorter - side) / side)))
    places = [(a, b) if width >= height else (b, a) for b in across for a in along]
    return [(float(x), float(y), side) for x, y in places]


def _around(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, 4, 2) points of the detector -> (n, 4) squares around the body.

    The first point is the middle of the hips. The second lies on the circle around the hips that holds the whole body.
    """
    hips, radius = points[:, 0], np.linalg.norm(points[:, 1] - points[:, 0], axis=1)[:, None]
    return np.concatenate([hips - radius, 2 * radius, 2 * radius], axis=1)


def suppressed(boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Non-maximum suppression: boxes (n, 4: left, top, width, height) -> indices of kept boxes, highest score first.

    No two kept boxes overlap by more than MOST_OVERLAP.
    """
    order, kept = np.argsort(-scores, kind="stable"), []
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    areas = boxes[:, 2] * boxes[:, 3]
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        sides = np.minimum(corners[rest, 2:], corners[first, 2:]) - np.maximum(corners[rest, :2], corners[first, :2])
        shared = np.clip(sides, 0, None).prod(1)
        order = rest[shared <= MOST_OVERLAP * (areas[rest] + areas[first] - shared)]
    return np.array(kept, np.intp)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-np.clip(logits, -50, 50)))).astype(np.float32)


def features_hash(content: bytes | None = None) -> str:
    """16 hex digits that change with the network's file and with the rule that makes features of its outputs.

    ``content`` is that of the network's file, as for Landmarks.
    """
    file = SHA256[LANDMARK_FILE] if content is None else hashlib.sha256(content).hexdigest()
    return hashlib.sha256(f"{file} {FEATURE_RULE}".encode()).hexdigest()[:16]
