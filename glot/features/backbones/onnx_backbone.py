"""Any exported network as a backbone: a model file for onnxruntime, and a YAML file beside it that describes it.

N crops. The input is (N, 3, H, W) or (N, H, W, 3) float32. The feature is an output (N, F), a map (N, C, h, w), or
tokens (N, L, C). N may be any, or a fixed number.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, Network
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind
from glot.features.backbones.onnx_settings import OnnxSettings, read_settings

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxBackbone(Backbone):
    """The network of a model file. Its hash is that of the file, of the files with its weights, and of its settings."""

    def __init__(self, kind: BackboneKind, path: Path, settings: OnnxSettings) -> None:
        self.path, self.settings = path, settings
        first = ExportedNetwork(path, settings, "cpu")
        black = np.zeros((1, settings.crop_rule.size, settings.crop_rule.size, 3), np.uint8)
        super().__init__(
            kind,
            weights_name=path.name,
            hash=hash_of_model(path, settings),
            feature_size=first(black).shape[1],
            crop_rule=settings.crop_rule,
        )

    def network(self, *, device: str, precision: str) -> Network:
        return ExportedNetwork(self.path, self.settings, device)


class ExportedNetwork:
    """Runs a model file on torch's number of threads. InputError, naming the file, where settings and file disagree."""

    def __init__(self, path: Path, settings: OnnxSettings, device: str) -> None:
        self.path, self.settings = path, settings
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads use no core
        options.log_severity_level = 4
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[device]])
        except Exception as error:  # onnxruntime's errors have no common class
            raise self._error(f"cannot be run by onnxruntime ({_first_line(error)})") from None
        self.input, self.is_last, self.batch = self._input()
        self.output = self._output()

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = self._normalised(crops)
        size = self.batch or len(images)
        return np.concatenate([self._run(images[start : start + size], size) for start in range(0, len(images), size)])

    def _normalised(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, S, S, 3) uint8 RGB -> the input of the network."""
        chosen, side = self.settings, crops.shape[1]
        (height, width) = chosen.size
        top, left = (side - height) // 2, (side - width) // 2
        seen = crops[:, top : top + height, left : left + width]
        if chosen.colour == "bgr":
            seen = seen[..., ::-1]
        scaled = seen.astype(np.float32) / np.float32(255 / chosen.largest)
        images = (scaled - np.array(chosen.mean, np.float32)) / np.array(chosen.deviation, np.float32)
        return np.ascontiguousarray(images if self.is_last else images.transpose(0, 3, 1, 2))

    def _run(self, images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        count = len(images)
        if count < size:  # the network takes batches of one size only
            images = np.concatenate([images, np.zeros((size - count, *images.shape[1:]), np.float32)])
        try:
            (found,) = self.session.run([self.output], {self.input: images})
        except Exception as error:
            raise self._error(f"fails on a batch of {len(images)} crops ({_first_line(error)})") from None
        if len(found) != len(images):
            raise self._error(
                f"output {self.output} is {found.shape} for {len(images)} crops; its first axis must be theirs"
            )
        return np.ascontiguousarray(self._pooled(found)[:count], np.float32)

    def _pooled(self, found: NDArray[Any]) -> NDArray[Any]:
        pooling, skip = self.settings.pooling, self.settings.skip
        if pooling == "none":
            if math.prod(found.shape[1:]) != max(found.shape[1:], default=1):
                raise self._error(
                    f"output {self.output} is {found.shape}; name a pooling (mean, first or quarters) in its YAML"
                )
            return found.reshape(len(found), -1)
        if found.ndim == 4:  # a map
            return self._of_map(found, pooling)
        if found.ndim != 3 or found.shape[1] <= skip:
            raise self._error(f"output {self.output} has the shape {found.shape}, which cannot be pooled by {pooling}")
        if pooling == "first":
            return found[:, 0]
        patches = found[:, skip:]
        if pooling == "mean":
            return patches.mean(1)
        (height, width), count = self.settings.size, patches.shape[1]
        rows = round(math.sqrt(count * height / width))
        if rows < 2 or count % rows or count // rows < 2:
            raise self._error(f"output {self.output} has {count} patches, which are no grid; is skip: {skip} right?")
        return self._of_map(patches.reshape(len(found), rows, count // rows, -1).transpose(0, 3, 1, 2), pooling)

    def _of_map(self, found: NDArray[Any], pooling: str) -> NDArray[Any]:
        """(N, C, H, W) -> (N, C), or (N, 4 C)."""
        if pooling == "mean":
            return found.mean((2, 3))
        if pooling == "first":
            raise self._error(f"output {self.output} is a map, which has no first token; use mean or quarters")
        halves = [np.array_split(rows, 2, axis=3) for rows in np.array_split(found, 2, axis=2)]
        return np.concatenate([part.mean((2, 3)) for row in halves for part in row], axis=1)

    def _input(self) -> tuple[str, bool, int]:
        """Name of the input, whether colours are its last axis, and its fixed number of crops (0: any)."""
        inputs, (height, width) = self.session.get_inputs(), self.settings.size
        if len(inputs) != 1:
            raise self._error(f"has {len(inputs)} inputs; a backbone has one, the crops")
        (one,) = inputs
        if one.type != "tensor(float)":
            raise self._error(f"takes {one.type}; export it for float32 pictures")
        shape = list(one.shape)
        fixed = [size if isinstance(size, int) else None for size in shape]
        for is_last in (False, True):
            wanted = [height, width, 3] if is_last else [3, height, width]
            if len(fixed) == 4 and all(size in (None, want) for size, want in zip(fixed[1:], wanted, strict=True)):
                return one.name, is_last, fixed[0] or 0
        raise self._error(f"takes pictures of the shape {shape}; its YAML says size {height} x {width}")

    def _output(self) -> str:
        names = [output.name for output in self.session.get_outputs()]
        if self.settings.output is None:
            if len(names) != 1:
                raise self._error(f"has {len(names)} outputs ({', '.join(names[:8])}); name one as output in its YAML")
            return str(names[0])
        if self.settings.output not in names:
            raise self._error(f"has no output {self.settings.output}; there is {', '.join(names[:8])}")
        return self.settings.output

    def _error(self, reason: str) -> InputError:
        return InputError(f"--backbone onnx:{self.path}: {reason}")


def hash_of_model(path: Path, settings: OnnxSettings) -> str:
    """16 hex digits of the SHA-256 of the file, of the files with its weights, and of the settings."""
    digest = hashlib.sha256(path.read_bytes())
    for name in external_files(path):
        digest.update((path.parent / name).read_bytes())
    digest.update(json.dumps(settings.stored, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def external_files(path: Path) -> list[str]:
    """The names of the files in which the model file keeps weights."""
    model = onnx.load(path, load_external_data=False)
    entries = [entry for tensor in model.graph.initializer for entry in tensor.external_data]
    return sorted({entry.value for entry in entries if entry.key == "location"})


def load(choice: BackboneChoice) -> OnnxBackbone:
    """The network in the file of a choice."""
    path = choice.file
    assert path is not None
    if not path.is_file():
        raise InputError(f"--backbone {choice.name}: there is no such file")
    return OnnxBackbone(choice.kind, path, read_settings(path))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
