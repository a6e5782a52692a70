"""A model file in ONNX's format in; the files in which it keeps its weights, and the hash of all of them, out."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from glot.errors import InputError, raise_if_passing
from glot.location import file_hash


def hash_of_model(files: Iterable[Path], described: Mapping[str, Any]) -> str:
    """16 hex digits of the SHA-256 of the model file, the files with its weights, and a description."""
    digest = hashlib.sha256()
    for path in files:
        try:
            digest.update(file_hash(path).encode())
        except OSError as error:
            raise_if_passing(error, path)
            raise InputError(f"--backbone onnx:{path}: cannot be read ({error.strerror})") from None
    digest.update(json.dumps(dict(described), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def weights_files(path: Path) -> list[Path]:
    """The files in which the model file keeps weights, sorted. InputError where one is missing, or for another file."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise_if_passing(error, path)
        raise InputError(f"--backbone onnx:{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # of protobuf, for any content
        raise InputError(f"--backbone onnx:{path}: is no ONNX file ({reason_of(error)}); export it again") from None
    tensors = [*_tensors(model.graph), *(tensor for one in model.functions for tensor in _of_nodes(one.node))]
    entries = [entry for tensor in tensors for entry in tensor.external_data]
    names = sorted({entry.value for entry in entries if entry.key == "location"})
    for name in names:
        if not (path.parent / name).is_file():
            raise InputError(f"--backbone onnx:{path}: its weights are in {name[:200]}, which is not beside it")
    return [path.parent / name for name in names]


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The stored numbers of a graph and of the graphs inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)


def reason_of(error: Exception) -> str:
    """The words of an error of onnxruntime: "[ONNXRuntimeError] : 1 : FAIL : words"."""
    words = " ".join(str(error).split()) or type(error).__name__
    if words.startswith("[ONNXRuntimeError]"):
        words = words.split(" : ", 3)[-1]
    return words[:300]
