"""Exported networks: fed as their YAML file says, pooled as it says, one crop at a time, and refused in one line."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.backbones.onnx_model_file import hash_of_model
from tests.fixtures.onnx_files import (
    DOUBLE,
    FLOAT,
    FLOAT16,
    INT64,
    NCHW,
    NHWC,
    PICTURE,
    SIDE,
    linear,
    node,
    write_model,
    write_settings,
)  # fmt: skip

MEAN, DEVIATION = [0.2, 0.4, 0.6], [0.3, 0.5, 0.7]


def random_crops(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, side, side, 3), np.uint8)


def features(name: str, crops: np.ndarray) -> np.ndarray:
    return Extractor(load_backbone(name))(crops)


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("height, width", [(16, 16), (16, 12), (10, 16), (15, 16)])
def test_pixels_reach_the_network_as_the_settings_say(tmp_path: Path, is_last: bool, height: int, width: int) -> None:
    shape = ("n", height, width, 3) if is_last else ("n", 3, height, width)
    crops = random_crops(2)
    for colour in ("rgb", "bgr"):
        for largest in (1, 255):
            settings: dict[str, Any] = {"size": [height, width], "colour": colour, "largest": largest}
            settings |= {"mean": MEAN, "deviation": DEVIATION}
            name = write_model(tmp_path / "net.onnx", [node("Flatten", "x")], shape=shape, settings=settings)
            found = features(name, crops).reshape(2, *shape[1:])
            top, left = (16 - height) // 2, (16 - width) // 2
            for channel in range(3):
                seen = crops[:, top : top + height, left : left + width, channel if colour == "rgb" else 2 - channel]
                wanted = (seen / (255.0 if largest == 1 else 1.0) - MEAN[channel]) / DEVIATION[channel]
                given = found[..., channel] if is_last else found[:, channel]
                np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


def test_without_other_words_pixels_are_those_of_imagenet(tmp_path: Path) -> None:
    name = write_model(tmp_path / "net.onnx", [node("Flatten", "x")], settings={"size": SIDE})
    crops = random_crops(1)
    wanted = (crops[0] / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(features(name, crops)[0], wanted.transpose(2, 0, 1).ravel(), atol=1e-5)


def of_quarters(picture: np.ndarray) -> list[float]:
    """The means of a picture's (H, W, C) quarters, side by side; the first halves are the larger ones."""
    high, wide = -(-picture.shape[0] // 2), -(-picture.shape[1] // 2)
    parts = [picture[:high, :wide], picture[:high, wide:], picture[high:, :wide], picture[high:, wide:]]
    return [part[..., channel].mean() for part in parts for channel in range(picture.shape[2])]


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("size", [[16, 16], [15, 16], [16, 11]])
def test_poolings_of_a_map(tmp_path: Path, is_last: bool, size: list[int]) -> None:
    """The map is the picture itself."""
    shape: list[Any] = ["n", *size, 3] if is_last else ["n", 3, *size]
    crops = random_crops(3)
    top, left = (16 - size[0]) // 2, (16 - size[1]) // 2
    seen = crops[:, top : top + size[0], left : left + size[1]].astype(np.float64)
    wanted = {"mean": [one.mean((0, 1)) for one in seen], "quarters": [of_quarters(one) for one in seen]}
    for pooling, values in wanted.items():
        settings = {**PICTURE, "size": size, "pooling": pooling}
        name = write_model(tmp_path / "net.onnx", [node("Identity", "x")], shape=shape, settings=settings)
        found = features(name, crops)
        np.testing.assert_allclose(found, np.stack(values), rtol=1e-5)
        assert found.dtype == np.float32
    turned = node("Transpose", "x", perm=[0, 3, 1, 2] if is_last else [0, 2, 3, 1])
    channels = "first" if is_last else "last"
    settings = {**PICTURE, "size": size, "pooling": "mean", "channels": channels}
    name = write_model(tmp_path / "net.onnx", [turned], shape=shape, settings=settings)
    np.testing.assert_allclose(features(name, crops), np.stack(wanted["mean"]), rtol=1e-5)


def write_tokens(path: Path, *, before: int, size: list[int], **settings: Any) -> str:
    """A network whose tokens are ``before`` numbered ones, then the pixels, row by row."""
    first = np.repeat(np.arange(1, before + 1, dtype=np.float32)[None, :, None], 3, 2)
    nodes = [
        node("Reshape", "x", "shape", to="flat"),
        node("Transpose", "flat", to="patches", perm=[0, 2, 1]),
        node("Slice", "patches", "zero", "one", "axis", to="one_patch"),
        node("Mul", "one_patch", "none", to="nothing"),
        node("Add", "nothing", "first", to="tokens"),
        node("Concat", "tokens", "patches", axis=1),
    ]
    weights = {"shape": np.array([0, 3, -1]), "zero": np.array([0]), "one": np.array([1]), "axis": np.array([1])}
    weights |= {"none": np.zeros((1, 1, 1), np.float32), "first": first}
    return write_model(
        path, nodes, shape=("n", 3, *size), weights=weights, settings={**PICTURE, "size": size, **settings}
    )


@pytest.mark.parametrize("before", [1, 5])
def test_poolings_of_tokens(tmp_path: Path, before: int) -> None:
    size, crops = [16, 12], random_crops(2)
    seen = crops[:, :, 2:14].astype(np.float64)
    wanted = {
        "first": np.ones((2, 3)),
        "mean": np.stack([one.mean((0, 1)) for one in seen]),
        "quarters": np.stack([of_quarters(one) for one in seen]),
    }
    for pooling, values in wanted.items():
        name = write_tokens(tmp_path / "net.onnx", before=before, size=size, pooling=pooling, skip=before)
        np.testing.assert_allclose(features(name, crops), values, rtol=1e-5)
    unskipped = write_tokens(tmp_path / "net.onnx", before=before, size=size, pooling="mean")
    with_tokens = (seen.sum((1, 2)) + before * (before + 1) / 2) / (16 * 12 + before)
    np.testing.assert_allclose(features(unskipped, crops), with_tokens, rtol=1e-5)


@pytest.mark.parametrize("shape, batch", [(NCHW, None), (NCHW, 1), (NCHW, 4), ((1, *NCHW[1:]), None),
                                          ((4, *NCHW[1:]), None), ((4, *NCHW[1:]), 4)])  # fmt: skip
def test_a_feature_does_not_depend_on_the_crops_beside_it(tmp_path: Path, shape: tuple, batch: int | None) -> None:
    settings = PICTURE if batch is None else {**PICTURE, "batch": batch}
    layer = linear()
    extract = Extractor(load_backbone(write_model(tmp_path / "net.onnx", **layer, shape=shape, settings=settings)))
    crops = random_crops(9)
    plain = crops.transpose(0, 3, 1, 2).reshape(9, -1).astype(np.float64) @ layer["weights"]["w"]
    together = extract(crops)
    np.testing.assert_allclose(together, plain, rtol=1e-4, atol=1e-2)
    for parts in ([9], [1] * 9, [4, 5], [2, 7]):
        cut = np.split(crops, np.cumsum(parts)[:-1])
        np.testing.assert_allclose(np.concatenate([extract(part) for part in cut]), together, rtol=1e-5, atol=1e-2)
    assert extract(crops[:0]).shape == (0, 5)


def test_a_network_that_mixes_crops_is_refused_unless_it_gets_them_one_by_one(tmp_path: Path) -> None:
    """As batch norms in training mode do, and networks that choose their int8 scale as they run."""
    path = tmp_path / "net.onnx"
    mixing = [node("ReduceMax", "x", to="most", axes=[0, 1, 2, 3], keepdims=1), node("Div", "x", "most", to="scaled")]
    mixing += [node("Flatten", "scaled")]
    for shape in (NCHW, (3, *NCHW[1:])):
        name = write_model(path, mixing, shape=shape)
        with pytest.raises(InputError, match=r"net.onnx: its feature .* depends on the crops beside it.*net.yaml"):
            load_backbone(name)
    name = write_model(path, mixing, settings={**PICTURE, "batch": 1})
    crops = random_crops(3)
    crops[1] //= 2
    wanted = [(crop / crop.max()).transpose(2, 0, 1).ravel() for crop in crops]
    np.testing.assert_allclose(features(name, crops), wanted, rtol=1e-5)


def test_a_network_for_one_crop_whose_axis_says_any_number(tmp_path: Path) -> None:
    """As an export without dynamic shapes inside leaves it."""
    settings, crops = {**PICTURE, "batch": 1}, random_crops(3)
    nodes, weights = [node("Reshape", "x", "shape")], {"shape": np.array([1, 3 * SIDE * SIDE])}
    name = write_model(tmp_path / "net.onnx", nodes, weights=weights, settings=settings)
    np.testing.assert_allclose(features(name, crops), crops.transpose(0, 3, 1, 2).reshape(3, -1))


def test_a_network_that_draws_numbers_is_refused(tmp_path: Path) -> None:
    nodes = [node("RandomNormalLike", "x", to="noise"), node("Add", "x", "noise", to="sum"), node("Flatten", "sum")]
    name = write_model(tmp_path / "net.onnx", nodes, settings={"size": SIDE})
    with pytest.raises(InputError, match=r"another feature each time .*model.eval\(\)"):
        load_backbone(name)


def test_axes_of_any_length_take_the_size_of_the_settings(tmp_path: Path) -> None:
    path, nodes = tmp_path / "net.onnx", [node("GlobalAveragePool", "x", to="means"), node("Flatten", "means")]
    for shape in (("n", 3, "h", "w"), ("n", "c", "h", "w"), (None, None, None, None)):
        for side in (16, 40):
            name = write_model(path, nodes, shape=shape, settings={**PICTURE, "size": side})
            backbone, crops = load_backbone(name), random_crops(2, side)
            assert backbone.crop_rule.size == side and backbone.feature_size == 3
            np.testing.assert_allclose(Extractor(backbone)(crops), crops.mean((1, 2)), rtol=1e-4)
    last = [node("ReduceMean", "x", axes=[1, 2], keepdims=0)]
    name = write_model(path, last, shape=("n", "h", "w", 3), settings={**PICTURE, "size": 20})
    np.testing.assert_allclose(features(name, random_crops(2, 20)), random_crops(2, 20).mean((1, 2)), rtol=1e-4)


def test_the_named_output_is_the_feature(tmp_path: Path) -> None:
    nodes = [node("Flatten", "x", to="flat"), node("ReduceMean", "x", axes=[1, 2, 3], keepdims=0, to="grey")]
    outputs = {"flat": FLOAT, "grey": FLOAT}
    for output, size in {"flat": 3 * SIDE * SIDE, "grey": 1}.items():
        name = write_model(tmp_path / "net.onnx", nodes, outputs=outputs, settings={**PICTURE, "output": output})
        assert load_backbone(name).feature_size == size and features(name, random_crops(2)).shape == (2, size)


@pytest.mark.parametrize("dtype, tolerance", [(FLOAT16, 2e-3), (DOUBLE, 1e-6)])
def test_other_floats_go_in_and_out(tmp_path: Path, dtype: int, tolerance: float) -> None:
    crops = random_crops(2)
    name = write_model(tmp_path / "net.onnx", [node("Flatten", "x")], dtype=dtype, settings={"size": SIDE})
    exact = write_model(tmp_path / "exact.onnx", [node("Flatten", "x")], settings={"size": SIDE})
    found = features(name, crops)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, features(exact, crops), atol=tolerance)
    name = write_model(
        tmp_path / "net.onnx", [node("Identity", "x")], dtype=dtype, settings={**PICTURE, "pooling": "mean"}
    )
    np.testing.assert_allclose(
        features(name, crops), crops.mean((1, 2)), rtol=1e-5
    )  # a sum of 65,280 overflows float16


def test_the_backbone_says_what_it_is(tmp_path: Path) -> None:
    settings = {**PICTURE, "crop_rule": {"widen": [192, 256], "blur": "gaussian"}}
    backbone = load_backbone(write_model(tmp_path / "resnet.v2.onnx", **linear(), settings=settings))
    assert backbone.describe() == {
        "name": "onnx", "weights": "resnet.v2.onnx", "hash": backbone.hash, "feature_size": 5
    }  # fmt: skip
    rule = backbone.crop_rule
    assert (rule.size, rule.margin, rule.widen, rule.blur) == (SIDE, 1.0, (192, 256), "gaussian")
    assert backbone.guess_size == 0 and backbone.seed is None and len(backbone.hash) == 16


def hashed(name: str) -> str:
    return load_backbone(name).hash


def test_the_hash_is_that_of_the_weights_and_of_what_features_depend_on(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    name = write_model(path, **linear())
    first = hashed(name)
    assert hashed(write_model(tmp_path / "elsewhere" / "other.onnx", **linear())) == first
    assert hashed(write_model(tmp_path / "seed.onnx", **linear(seed=1))) != first
    same: list[dict] = [
        {"colour": "rgb"}, {"mean": [0.0, 0, 0]}, {"output": "y"}, {"skip": 0}, {"pooling": "none"}, {"batch": 2},
        {"crop_rule": {}}, {"channels": None}, {"largest": 255.0},
    ]  # fmt: skip
    for more in same:
        write_settings(path, {**PICTURE, **more})
        assert hashed(name) == first, more
    other: list[dict] = [
        {"colour": "bgr"}, {"mean": [0, 0, 1]}, {"deviation": [1, 1, 2]}, {"largest": 1},
        {"crop_rule": {"margin": 1.2}}, {"crop_rule": {"widen": [192, 256]}},
        {"crop_rule": {"margin": 1.2, "blur": "gaussian"}},
    ]  # fmt: skip
    found = set()
    for more in other:
        write_settings(path, {**PICTURE, **more})
        found.add(hashed(name))
    assert len(found | {first}) == len(other) + 1
    for rule in ({"margin": 1.2}, "wham"):
        write_settings(path, {**PICTURE, "crop_rule": rule})
        found.add(hashed(name))
    assert len(found) == len(other), "the name of a rule changes no feature"


def test_weights_in_files_of_their_own_are_part_of_the_hash(tmp_path: Path) -> None:
    external: dict[str, Any] = {"save_as_external_data": True, "location": "net.bin", "size_threshold": 0}
    name = write_model(tmp_path / "net.onnx", **linear(), **external)
    first, crops = load_backbone(name), random_crops(2)
    inside = write_model(tmp_path / "inside.onnx", **linear())
    assert np.array_equal(features(name, crops), features(inside, crops))
    stored = tmp_path / "net.bin"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:4] + bytes(4) + whole[8:])
    changed = load_backbone(name)
    assert changed.hash != first.hash and not np.array_equal(
        Extractor(changed)(crops), Extractor(first)(crops)[:, ::-1]
    )
    stored.unlink()
    with pytest.raises(InputError, match=r"net.onnx: its weights are in net.bin, which is not beside it"):
        load_backbone(name)
    stored.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"net.onnx: cannot be run by onnxruntime"):
        load_backbone(name)


def test_weights_in_other_folders_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(40_000))
    external: dict[str, Any] = {"save_as_external_data": True, "location": "net.bin", "size_threshold": 0}
    name = write_model(tmp_path / "in" / "net.onnx", **linear(), **external)
    for place in (str(tmp_path / "secret"), "../secret", "/dev/zero", "", "."):
        model = onnx.load(tmp_path / "in" / "net.onnx", load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            entry.value = place if entry.key == "location" else entry.value
        (tmp_path / "in" / "net.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(InputError, match="onnx:.*net.onnx: ") as error:
            load_backbone(name)
        assert "\n" not in str(error.value)


def test_weights_inside_other_parts_of_the_file_are_found_too(tmp_path: Path) -> None:
    """A constant, and one in the branches of a condition."""
    place = {"location": "net.bin", "offset": "0", "length": "4"}

    def constant(to: str) -> onnx.NodeProto:
        stored = onnx.TensorProto(data_type=FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        stored.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in place.items())
        return node("Constant", to=to, value=stored)

    value = onnx.helper.make_tensor_value_info("inner", FLOAT, [1])
    branch = onnx.helper.make_graph([constant("inner")], "branch", [], [value])
    condition = {"yes": np.array(True)}
    flat = node("Flatten", "x", to="flat")
    plans: list[list[onnx.NodeProto]] = [
        [flat, constant("c"), node("Add", "flat", "c")],
        [flat, node("If", "yes", to="c", then_branch=branch, else_branch=branch), node("Add", "flat", "c")],
    ]
    for nodes in plans:
        write_model(tmp_path / "net.onnx", nodes, weights=condition)
        with pytest.raises(InputError, match="its weights are in net.bin, which is not beside it"):
            load_backbone(f"onnx:{tmp_path / 'net.onnx'}")


def test_a_large_file_is_hashed_without_being_held(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(48 << 20)
    tracemalloc.start()
    found = hash_of_model([tmp_path / "weights"], {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 16 and peak < 8 << 20


def wrong_networks(folder: Path) -> dict[str, Callable[[], str]]:
    """{expected words: what makes the files and gives the backbone's name}, for files that cannot be used."""
    path = folder / "net.onnx"
    flat = [node("Flatten", "x")]
    two = [node("Flatten", "x", to="a"), node("Flatten", "x", to="b")]
    both = {"a": FLOAT, "b": FLOAT}

    def made(nodes: list[onnx.NodeProto], **options: Any) -> Callable[[], str]:
        settings = {**PICTURE, **options.pop("more", {})}
        return lambda: write_model(path, nodes, settings=settings, **options)

    def text(content: bytes) -> Callable[[], str]:
        return lambda: (path.write_bytes(content), write_settings(path, PICTURE), f"onnx:{path}")[-1]  # type: ignore[func-returns-value]

    def two_inputs() -> str:
        name = write_model(path, [node("Add", "x", "x", to="s"), node("Flatten", "s")])
        model = onnx.load(path)
        model.graph.input.append(onnx.helper.make_tensor_value_info("mask", FLOAT, ["n"]))
        path.write_bytes(model.SerializeToString())
        return name

    def damaged() -> str:
        name = write_model(path, flat, shape=("axis", 3, SIDE, SIDE))
        path.write_bytes(path.read_bytes().replace(b"axis", b"\xda" * 4))
        return name

    def newer() -> str:
        name = write_model(path, flat)
        model = onnx.load(path)
        model.opset_import[0].version = 99
        path.write_bytes(model.SerializeToString())
        return name

    return {
        "is no ONNX file": text(b"hello\n" * 10),
        "onnxruntime": text(b""),
        "is damaged: a name in it is no text": damaged,
        "has 2 inputs (x, mask)": two_inputs,
        "cannot be run by onnxruntime": newer,
        "input is a tensor(uint8); export it": made(flat, dtype=onnx.TensorProto.UINT8),
        "shape (n, 3, 16, 16), and its YAML file says a size of 20 x 20": made(flat, more={"size": 20}),
        "shape (n, 1, 16, 16)": made(flat, shape=("n", 1, SIDE, SIDE)),
        "shape (n, 768)": made(flat, shape=("n", 768)),
        "has 2 outputs (a, b); name one": made(two, outputs=both),
        "has no output c; name one of a, b": made(two, outputs=both, more={"output": "c"}),
        "output y is a tensor(int64)": made([node("Shape", "x")], outputs={"y": INT64}),
        "takes 4 crops at a time, and its YAML file says batch: 2": made(
            flat, shape=(4, *NCHW[1:]), more={"batch": 2}
        ),
        "fails on 2 crops": made([node("Reshape", "x", "s")], weights={"s": np.array([1, 768])}),
        "(1, 1536) for 2 crops; a feature is a row for each; if it takes a fixed number at a time, say so": made(
            [node("Reshape", "x", "s")], weights={"s": np.array([1, -1])}
        ),
        "has the shape (3, 256) for 1 crop": made(
            [node("Transpose", "x", to="t", perm=[1, 0, 2, 3]), node("Reshape", "t", "s")],
            shape=(1, *NCHW[1:]), weights={"s": np.array([3, -1])}, more={"size": SIDE},
        ),
        "has the shape () for 1 crop": made([node("ReduceMean", "x", keepdims=0)]),
        "has the shape (1, 3, 16, 16); name a pooling (mean or quarters)": made([node("Identity", "x")]),
        "name a pooling (mean, first or quarters)": made(
            [node("Reshape", "x", "s")], weights={"s": np.array([0, 3, -1])}
        ),
        "pooling: mean is for tokens and maps": made(flat, more={"pooling": "mean"}),
        "has no first token": made([node("Identity", "x")], more={"pooling": "first"}),
        "have no quarters": made([node("GlobalAveragePool", "x")], more={"pooling": "quarters"}),
        "has 3 tokens, and skip: 3 leaves none": made(
            [node("Reshape", "x", "s")], weights={"s": np.array([0, 3, -1])}, more={"pooling": "mean", "skip": 3}
        ),
        "255 patches after skip: 1, which are no grid": made(
            [node("Reshape", "x", "s", to="t"), node("Transpose", "t", perm=[0, 2, 1])],
            weights={"s": np.array([0, 3, -1])}, more={"pooling": "quarters", "skip": 1},
        ),
        "NaN or infinite": made([node("Flatten", "x", to="f"), node("Div", "f", "f", to="ones"),
                                 node("Sub", "ones", "ones", to="zeros"), node("Log", "zeros")]),
        "holds NaN": made(flat, dtype=FLOAT16, more={"mean": 0, "deviation": 1e-3}),
        "gives 196608 numbers a crop": made(flat, shape=("n", 3, 256, 256), more={"size": 256}),
        "gives 0 numbers a crop": made([node("Flatten", "x", to="f"), node("Slice", "f", "a", "a", "b")],
                                       weights={"a": np.array([0]), "b": np.array([1])}),
    }  # fmt: skip


@pytest.mark.parametrize("words", wrong_networks(Path("unused")))
def test_a_network_that_cannot_be_used_is_one_line(
    tmp_path: Path, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name = wrong_networks(tmp_path)[words]()
    with pytest.raises(InputError) as error:
        load_backbone(name)
    said = str(error.value)
    assert words in said and said.startswith(f"--backbone {name}: ")
    assert "\n" not in said and len(said.replace(str(tmp_path), "")) < 500
    assert capfd.readouterr() == ("", ""), "onnxruntime writes nothing itself"


def test_infinite_values_of_later_crops_stop_the_run(tmp_path: Path) -> None:
    """A feature set with NaN would spoil a training without a word."""
    nodes = [node("ReduceMax", "x", axes=[1, 2, 3], keepdims=0, to="most"), node("Log", "most")]
    extract = Extractor(load_backbone(write_model(tmp_path / "net.onnx", nodes)))
    assert np.isfinite(extract(random_crops(2))).all()
    with pytest.raises(InputError, match="NaN or infinite"):
        extract(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def test_missing_files_and_options_that_it_does_not_have(tmp_path: Path) -> None:
    name = write_model(tmp_path / "net.onnx", **linear())
    wrong: dict[str, Callable[[], Backbone]] = {
        "there is no such file": lambda: load_backbone(f"{name}x"),
        "onnx:FILE": lambda: load_backbone("onnx"),
        "give the file, too": lambda: load_backbone("onnx:"),
        "brings its own": lambda: load_backbone(name, Path("a.pth")),
        "has one rule only": lambda: load_backbone(name, crop_rule="wham"),
        "guesses no bodies": lambda: load_backbone(name, first_guess=True),
    }
    for words, call in wrong.items():
        with pytest.raises(InputError, match=words):
            call()
    with pytest.raises(InputError, match="--precision bfloat16"):
        Extractor(load_backbone(name), precision="bfloat16")
    (tmp_path / "net.yaml").unlink()
    with pytest.raises(InputError, match=r"net.onnx: no net.yaml beside it.*docs/backbones.md"):
        load_backbone(name)
    with pytest.raises(InputError, match="no such file"):
        load_backbone(f"onnx:{tmp_path}")


def test_without_onnxruntime_for_gpus_it_runs_on_the_cpu_or_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = load_backbone(write_model(tmp_path / "net.onnx", **linear()))
    if backbone.kind.devices == ("cpu",):
        assert np.array_equal(Extractor(backbone, device="cuda")(random_crops(2)), Extractor(backbone)(random_crops(2)))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="GPU.*--devices cpu"):
            backbone.network(device="cuda", precision="float32")
    assert capfd.readouterr() == ("", "")


def test_threads_of_torch_are_those_of_the_network(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    backbone = load_backbone(write_model(tmp_path / "net.onnx", **linear(), shape=NHWC))
    try:
        torch.set_num_threads(2)
        network: Any = backbone.network(device="cpu", precision="float32")
    finally:
        torch.set_num_threads(before)
    assert network.session.get_session_options().intra_op_num_threads == 2
