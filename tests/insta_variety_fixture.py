"""Writes tiny InstaVariety files as their makers do: TFRecord framing, tf.train.Example by real protobuf."""

import struct
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray

SIZE = 224


def _messages() -> dict[str, Any]:
    """The classes of tf.train's example.proto and feature.proto, built from their published field numbers."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf.train", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def add(parent: Any, name: str) -> Any:
        message = parent.add()
        message.name = name
        return message

    def field(message: Any, name: str, number: int, kind: int, *, of: str = "", repeated: bool = False) -> Any:
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        made = message.field.add(name=name, number=number, type=kind, label=label)
        if of:
            made.type_name = f".tf.train.{of}"
        return made

    def mapping(message: Any, name: str, value: str) -> None:
        entry = add(message.nested_type, "".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        field(entry, "key", 1, kinds.TYPE_STRING)
        field(entry, "value", 2, kinds.TYPE_MESSAGE, of=value)
        field(message, name, 1, kinds.TYPE_MESSAGE, of=f"{message.name}.{entry.name}", repeated=True)

    lists = {"Bytes": kinds.TYPE_BYTES, "Float": kinds.TYPE_FLOAT, "Int64": kinds.TYPE_INT64}
    for name, kind in lists.items():
        field(add(file.message_type, f"{name}List"), "value", 1, kind, repeated=True)
    feature = add(file.message_type, "Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(lists, 1):
        made = field(feature, f"{name.lower()}_list", number, kinds.TYPE_MESSAGE, of=f"{name}List")
        made.oneof_index = 0
    mapping(add(file.message_type, "Features"), "feature", "Feature")
    field(add(file.message_type, "FeatureList"), "feature", 1, kinds.TYPE_MESSAGE, of="Feature", repeated=True)
    mapping(add(file.message_type, "FeatureLists"), "feature_list", "FeatureList")
    field(add(file.message_type, "Example"), "features", 1, kinds.TYPE_MESSAGE, of="Features")
    sequence = add(file.message_type, "SequenceExample")
    field(sequence, "context", 1, kinds.TYPE_MESSAGE, of="Features")
    field(sequence, "feature_lists", 2, kinds.TYPE_MESSAGE, of="FeatureLists")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf.train.{name}"))
        for name in ("Example", "SequenceExample")
    }


Example, SequenceExample = _messages().values()


def plain_crc32c(data: bytes) -> int:
    """Bit after bit, as the definition has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


_TABLE = [plain_crc32c(bytes([byte])) ^ plain_crc32c(b"\0") for byte in range(256)]


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """A payload as a record."""
    length = struct.pack("<Q", len(payload))
    return length + struct.pack("<I", _masked(length)) + payload + struct.pack("<I", _masked(payload))


def picture(seed: int) -> NDArray[np.uint8]:
    """(224, 224, 3) BGR, smooth, so that its JPEG is small."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def track(frames: int = 24, *, seed: int = 0) -> dict[str, Any]:
    """{feature name: list of bytes, float32 or int64 array} of one track, in the shapes of the published files."""
    rng = np.random.default_rng(seed)
    visible = rng.random((frames, 14)) < 0.8
    visible[:, 13] = False  # no head top, ever
    xys = np.where(visible[:, None], rng.uniform(-0.9, 0.9, (frames, 2, 14)), 0.0)

    def points(count: int) -> NDArray[np.float64]:
        seen = (rng.random((frames, 1, count)) < 0.7).astype(float)
        return np.concatenate([rng.uniform(-0.9, 0.9, (frames, 2, count)) * seen, seen], 1)  # (N, 3, count)

    images = [cv2.imencode(".jpg", picture(1000 * seed + i))[1].tobytes() for i in range(frames)]
    return {
        "meta/N": np.array([frames]),
        "meta/has_3d": np.array([0]),
        "meta/has_3d_joints": np.array([0]),
        "image/encoded": images,
        "image/filenames": [f"/videos/dance/clip{seed}/frame{i:04d}.png".encode() for i in range(frames + 2)],
        "image/heightwidths": np.full((frames, 2), SIZE),
        "image/xys": xys.astype(np.float32),
        "image/visibilities": visible.astype(np.int64)[:, None],
        "image/face_pts": points(5).astype(np.float32),
        "image/toe_pts": points(6).astype(np.float32),
        "image/phis": rng.normal(0, 1, (frames, 2048)).astype(np.float32),
        "image/centers": np.full((frames, 2), 112),
        "image/crop_pts": np.zeros((frames, 2), np.int64),
        "image/scale_factors": np.ones((frames, 2), np.float32),
        "image/cams": np.zeros((frames, 3), np.float32),
        "mosh/poses": -np.ones((frames, 72), np.float32),
        "mosh/shape": -np.ones(10, np.float32),
        "mosh/gt3ds": -np.ones((frames, 14, 3), np.float32),
    }


def encode(values: dict[str, Any]) -> bytes:
    """A track as tf.train.Example."""
    message = Example()
    for name, value in values.items():
        feature = message.features.feature[name]
        if isinstance(value, list):
            feature.bytes_list.value.extend(value)
        elif value.dtype.kind == "f":
            feature.float_list.value.extend(value.ravel().tolist())
        else:
            feature.int64_list.value.extend(value.ravel().tolist())
    return message.SerializeToString()


def write_file(path: Path, tracks: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(frame(encode(values)) for values in tracks))
    return path


def name_of(number: int) -> str:
    return f"insta_variety_{number:02d}_copy00_hmr_noS5.ckpt-642561.tfrecord"


def write_dataset(root: Path, *, files: int = 2, tracks: int = 2, frames: int = 24) -> Path:
    """train/ and test/ below ``root``, each with so many files of so many tracks."""
    seed = 0
    for split in ("train", "test"):
        for number in range(files):
            write_file(root / split / name_of(number), [track(frames, seed=seed + i) for i in range(tracks)])
            seed += tracks
    return root


def write_h5(path: Path, *, tracks: tuple[int, ...] = (20, 17), seed: int = 0, **storage: Any) -> dict[str, NDArray]:
    """A database as VIBE's ``insta_train_db.h5`` is laid out; returns what is in it."""
    rng = np.random.default_rng(seed)
    rows = sum(tracks)
    files = "data/insta_variety/train/" + name_of(0)
    joints = rng.uniform(10, 210, (rows, 25, 3))
    joints[..., 2] = rng.random((rows, 25)) < 0.8
    joints[:, 13] = [112, 112, 0]
    joints[joints[..., 2] == 0, :2] = 112  # where an unseen joint's zeros go
    content = {
        "vid_name": np.array([f"{files}-{number}".encode() for number, n in enumerate(tracks) for _ in range(n)]),
        "frame_id": np.concatenate([np.arange(n) for n in tracks]),
        "joints2D": joints,
        "features": rng.normal(0, 1, (rows, 2048)).astype(np.float32),
    }
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file.create_dataset(name, data=values, **storage)
    return content
