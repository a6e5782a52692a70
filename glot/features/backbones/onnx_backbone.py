"""Any exported network as a backbone: a model file for onnxruntime, and a YAML file beside it that describes it.

N crops, S px, F features. The input is (N, 3, H, W) or (N, H, W, 3), float32, float16 or float64. The feature is an
output (N, F), a map, or tokens (N, L, C). N may be any, or a fixed number.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import DTypeLike, NDArray

from glot.errors import InputError
from glot.features.backbones.backbone import MOST_FEATURES, Backbone, Network
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind
from glot.features.backbones.onnx_model_file import hash_of_model, reason_of, weights_files
from glot.features.backbones.onnx_pooling import pooled
from glot.features.backbones.onnx_settings import OnnxSettings, read_settings, settings_file

PROVIDERS = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # the features of a CPU
}
INPUTS: dict[str, DTypeLike] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
SILENT = 4  # onnxruntime's level of messages: errors come as exceptions, and nothing else is written
DRIFT = 1e-3  # of a feature's norm; networks that look at one crop at a time stay far below it, also in float16


class OnnxBackbone(Backbone):
    """The network of a model file. Its hash is that of the file, of the files with its weights, and of its settings."""

    def __init__(self, kind: BackboneKind, path: Path, settings: OnnxSettings) -> None:
        self.path, self.settings = path, settings
        files = [path, *weights_files(path)]
        first = ExportedNetwork(path, settings, "cpu")
        super().__init__(
            kind,
            weights_name=path.name,
            hash=hash_of_model(files, settings.identity() | {"output": first.output}),
            feature_size=tried(first, settings.crop_rule.size),
            crop_rule=settings.crop_rule,
        )

    def network(self, *, device: str, precision: str) -> Network:
        return ExportedNetwork(self.path, self.settings, device)


class ExportedNetwork:
    """Runs a model file on torch's number of threads. InputError, naming the file, where settings and file disagree."""

    def __init__(self, path: Path, settings: OnnxSettings, device: str) -> None:
        self.path, self.settings = path, settings
        provider, provider_options = PROVIDERS[device]
        onnxruntime.set_default_logger_severity(SILENT)
        if provider not in onnxruntime.get_available_providers():
            raise self.error("this onnxruntime runs on no GPU; install onnxruntime-gpu, or give --devices cpu")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads use no core
        options.log_severity_level = SILENT
        try:
            self.session = onnxruntime.InferenceSession(
                path, options, providers=[(provider, provider_options)], enable_fallback=0
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise self.error(f"cannot be run by onnxruntime ({reason_of(error)})") from None
        if provider not in self.session.get_providers():
            raise self.error("onnxruntime cannot use the GPU; give --devices cpu")
        try:
            self.input, self.dtype, self.is_last, self.batch = self._input()
            self.output = self._output()
        except UnicodeDecodeError:
            raise self.error("is damaged: a name in it is no text; export it again") from None

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = self.batch or len(crops)
        with np.errstate(all="ignore"):  # values that are no finite numbers are an error below, not a warning
            images = self._normalised(crops)
            parts = [self._run(images[start : start + size], size) for start in range(0, len(images), size)]
        return np.concatenate(parts)

    def error(self, reason: str) -> InputError:
        """The error of this network."""
        return InputError(f"--backbone onnx:{self.path}: {reason}")

    def _normalised(self, crops: NDArray[np.uint8]) -> NDArray[np.floating]:
        """(N, S, S, 3) uint8 RGB -> the input of the network."""
        chosen, side = self.settings, crops.shape[1]
        (height, width) = chosen.size
        top, left = (side - height) // 2, (side - width) // 2
        seen = crops[:, top : top + height, left : left + width]
        if chosen.colour == "bgr":
            seen = seen[..., ::-1]
        scaled = seen.astype(np.float32) / np.float32(255 / chosen.largest)
        images = (scaled - np.array(chosen.mean, np.float32)) / np.array(chosen.deviation, np.float32)
        return np.ascontiguousarray(images if self.is_last else images.transpose(0, 3, 1, 2), self.dtype)

    def _run(self, images: NDArray[np.floating], size: int) -> NDArray[np.float32]:
        """The features of at most ``size`` images; a batch that is not full is filled with zeros."""
        count = len(images)
        if count < size:
            images = np.concatenate([images, np.zeros((size - count, *images.shape[1:]), images.dtype)])
        hint = "" if self.batch else "; if it takes a fixed number at a time, say so in its YAML file, as in batch: 1"
        crops = "1 crop" if size == 1 else f"{size} crops"
        try:
            (found,) = self.session.run([self.output], {self.input: images})
        except Exception as error:
            raise self.error(f"fails on {crops} ({reason_of(error)}){hint}") from None
        if not found.ndim or len(found) != size:
            shape = f"output {self.output} has the shape {found.shape} for {crops}"
            raise self.error(f"{shape}; a feature is a row for each{hint}")
        try:
            features = pooled(found, self.settings, channels_last=self._channels_last)[:count]
        except InputError as error:
            raise self.error(f"output {self.output} {error}") from None
        if not 1 <= features.shape[1] <= MOST_FEATURES:
            many = f"gives {features.shape[1]} numbers a crop; a feature has 1 to {MOST_FEATURES}"
            raise self.error(f"output {self.output} {many}; name another output or pooling in its YAML file")
        if not np.isfinite(features).all():
            raise self.error(
                f"output {self.output} holds NaN or infinite values; check mean, deviation and largest in its YAML "
                "file, or export it in float32"
            )
        return np.ascontiguousarray(features)

    @property
    def _channels_last(self) -> bool:
        return self.is_last if self.settings.channels is None else self.settings.channels == "last"

    def _input(self) -> tuple[str, DTypeLike, bool, int]:
        """Name and type of the input, whether colours are its last axis, and how many crops at a time (0: any)."""
        inputs = self.session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(one.name for one in inputs[:8])
            raise self.error(f"has {len(inputs)} inputs ({names}); a backbone has one, the crops")
        (one,) = inputs
        if one.type not in INPUTS:
            raise self.error(f"its input is a {one.type}; export it for float32 pictures")
        (height, width), axes = self.settings.size, [size if isinstance(size, int) else None for size in one.shape]
        for is_last in (False, True):
            wanted = [height, width, 3] if is_last else [3, height, width]
            if len(axes) == 4 and all(size in (None, want) for size, want in zip(axes[1:], wanted, strict=True)):
                return one.name, INPUTS[one.type], is_last, self._crops_at_a_time(axes[0])
        shape = ", ".join(str(size) for size in one.shape)
        raise self.error(
            f"its input has the shape ({shape}), and its YAML file says a size of {height} x {width}, so "
            f"(n, 3, {height}, {width}) or (n, {height}, {width}, 3)"
        )

    def _crops_at_a_time(self, fixed: int | None) -> int:
        asked = self.settings.batch
        if fixed and asked and fixed != asked:
            raise self.error(f"takes {fixed} crops at a time, and its YAML file says batch: {asked}; leave that out")
        return fixed or asked or 0

    def _output(self) -> str:
        types = {output.name: output.type for output in self.session.get_outputs()}
        names, name = ", ".join(list(types)[:8]), self.settings.output
        if name is None:
            if len(types) != 1:
                raise self.error(f"has {len(types)} outputs ({names}); name one as output in its YAML file")
            (name,) = types
        if name not in types:
            raise self.error(f"has no output {name[:100]}; name one of {names} in its YAML file")
        if types[name] not in INPUTS:
            raise self.error(f"output {name} is a {types[name]}; a feature is of float32 numbers, name another output")
        return name


def tried(network: ExportedNetwork, side: int) -> int:
    """The size of a feature. InputError for a network whose feature of a crop is not always the same.

    A crop (side, side, 3) of weak noise is seen alone, and after one of strong noise.
    """
    strong = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    noise = strong[:, ::-1] // 2 + 64
    alone, beside = network(noise)[0], network(np.concatenate([strong, noise]))[1]
    if _is_other(beside, alone):
        if _is_other(network(noise)[0], alone):
            raise network.error("gives another feature each time it sees the same crop; export it after model.eval()")
        raise network.error(
            "its feature of a crop depends on the crops beside it; export it after model.eval(), or, if it quantises "
            f"as it runs, say batch: 1 in {settings_file(network.path).name}"
        )
    return len(alone)


def _is_other(feature: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    exact = wanted.astype(np.float64)
    return bool(np.linalg.norm(feature - exact) > DRIFT * np.linalg.norm(exact))


def load(choice: BackboneChoice) -> OnnxBackbone:
    """The network in the file of a choice."""
    path = choice.file
    assert path is not None
    if not path.is_file():
        raise InputError(f"--backbone {choice.name}: there is no such file")
    return OnnxBackbone(choice.kind, path, read_settings(path))
