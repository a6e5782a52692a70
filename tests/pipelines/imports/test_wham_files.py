"""WHAM's files: features are unchanged, labels are in the right columns, nothing of a file is executed."""

import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.schema import Manifest, read_manifest
from glot.human.joints import COMMON14, SPIN49
from glot.models.checkpoint import check_features
from pipelines.import_features import main
from pipelines.imports import importing, sequences
from pipelines.imports.hmr2_layouts import COCO17
from pipelines.imports.spec import ImportSpec
from tests.fixtures.wham_content import wham_test, wham_train, write_wham
from tests.pipelines.imports.test_import_features import Evil, rows_of

HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]


def run(src: Path, **options: Any) -> int:
    return main(ImportSpec(src=src, out=src.parent / "out", body=None, **options))


def imported(path: Path, content: dict[str, Any], dataset: str, split: str = "train") -> dict[str, Any]:
    write_wham(path, content)
    assert run(path) == 0
    return rows_of(path.parent / "out", dataset, split)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder, the content and the rows of a file for training."""
    folder, content = tmp_path_factory.mktemp("train"), wham_train()
    content["features"][3, :4] = torch.tensor([-0.0, 1e-42, 3.4e38, 5])
    return folder, content, imported(folder / "3dpw_train_vit.pth", content, "3dpw")


def test_the_dump_is_the_kind_that_is_read(train: Any) -> None:
    content = (train[0] / "3dpw_train_vit.pth").read_bytes()
    for name in (b"defaultdict", b"_rebuild_tensor_v2", b"torch.storage", b"_load_from_bytes", b"FloatStorage"):
        assert name in content


def test_features_of_a_file_for_training_are_untouched(train: Any) -> None:
    _, content, rows = train
    assert rows["feature"].dtype == np.float32
    assert rows["feature"].tobytes() == content["features"].numpy().tobytes()
    assert rows["track_id"] == ["0000"] * 24 + ["0001"] * 20
    assert rows["frame_index"].tolist() == content["frame_id"].tolist()
    assert np.array_equal(rows["bbox"], content["bbox"].numpy()) and set(rows["crop_scale"]) == {1}
    assert rows["gender"] == ["male"] * 24 + ["female"] * 20 and set(rows["fps"]) == {30}


def test_labels_of_3dpw(train: Any) -> None:
    _, content, rows = train
    assert np.array_equal(rows["pose"].reshape(44, 72), content["pose"].numpy()) and rows["has_smpl"].all()
    assert np.array_equal(rows["betas"], content["betas"].numpy())
    names = (*COCO17[:5], *COMMON14)
    picked = [*range(5), *range(17, 31)]
    slots = [SPIN49.index(name) for name in names]
    assert np.array_equal(rows["joints3d_valid"][0], np.isin(np.arange(49), slots)) and rows["has_3d"].all()
    joints = np.zeros((44, 49, 3))
    joints[:, slots] = content["joints3D"].numpy()[:, picked]
    joints[:, slots] -= joints[:, HIPS].mean(1, keepdims=True)
    assert np.allclose(rows["joints3d"], joints, atol=1e-6)
    assert np.array_equal(rows["keypoints2d"][:, slots, :2], content["joints2D"].numpy()[:, picked])
    assert (rows["keypoints2d"][..., 2] == np.isin(np.arange(49), slots)).all()


def test_the_manifest_names_the_backbone_and_its_crops(train: Any) -> None:
    manifest = read_manifest(train[0] / "out/3dpw/train")
    assert manifest.backbone == {
        "name": "hmr2", "weights": "hmr2a.ckpt, as WHAM used it", "hash": "imported-hmr2-wham", "feature_size": 1024,
        "crop_rule": "wham",
    }  # fmt: skip
    assert (manifest.crop["size"], manifest.crop["scale"], manifest.crop["target_scale"]) == (256, 1, 1)
    assert "blurred" not in manifest.crop["rule"] and manifest.skipped == []


def test_a_model_refuses_features_of_another_backbone(train: Any) -> None:
    class Saved:
        """What is asked of a checkpoint."""

        recipe = type("Recipe", (), {"model": type("Config", (), {"feature_size": 1024})})
        info = {"features": {"backbone": read_manifest(train[0] / "out/3dpw/train").backbone}}

    def given(hash: str) -> Manifest:
        backbone = {**Saved.info["features"]["backbone"], "hash": hash}
        return Manifest("3dpw", "test", 1, 1, backbone, {}, {}, [])

    check_features(Saved, given("imported-hmr2-wham"))  # type: ignore[arg-type]
    for hash in ("imported-hmr2-gvhmr", "imported", "0123456789abcdef"):
        with pytest.raises(InputError, match="this model was trained on"):
            check_features(Saved, given(hash))  # type: ignore[arg-type]


def test_the_first_frame_of_a_sequence_for_evaluation_is_there_once(tmp_path: Path) -> None:
    content = wham_test()
    rows = imported(tmp_path / "3dpw_test_vit.pth", content, "3dpw", "test")
    assert rows["feature"].tobytes() == b"".join(f[1:].numpy().tobytes() for f in content["features"])
    assert rows["track_id"] == ["downtown_walk_00_0"] * 24 + ["downtown_walk_01_0"] * 20
    assert rows["frame_index"].tolist() == [*range(5, 29), *range(5, 25)]
    assert rows["gender"] == ["male"] * 24 + ["female"] * 20
    assert np.array_equal(rows["pose"].reshape(-1, 72), torch.cat([pose[1:] for pose in content["pose"]]).numpy())
    assert rows["has_smpl"].all() and rows["valid"].all() and not rows["has_3d"].any()
    found = torch.cat([points[1:] for points in content["kp2d"]]).numpy()
    for number, name in enumerate(COCO17):
        seen = found[:, number, 2] > 0.3
        assert np.array_equal(rows["keypoints2d"][:, SPIN49.index(name), 2], seen)
        assert np.array_equal(rows["keypoints2d"][seen, SPIN49.index(name), :2], found[seen, number, :2])


def test_validation_files_of_emdb_with_boxes_of_three_numbers(tmp_path: Path) -> None:
    content = wham_test()
    content["bbox"] = [box[:, :3] for box in content["bbox"]]
    content["bbox"] = [box.contiguous() for box in content["bbox"]]
    rows = imported(tmp_path / "emdb_1_vit.pth", content, "emdb", "test")
    assert np.array_equal(rows["bbox"][:, 3], torch.cat([box[1:, 2] for box in content["bbox"]]).numpy())


@pytest.mark.parametrize(("name", "columns"), [("human36m", 2), ("mpii3d", 3)])
def test_motion_capture_has_the_common_joints_and_no_smpl(tmp_path: Path, name: str, columns: int) -> None:
    content = wham_train(name, columns=columns)
    if name == "human36m":
        content["frame_id"] = content["frame_id"] * 2  # every second picture of 50 per second
    dataset = {"mpii3d": "mpi_inf_3dhp"}.get(name, name)
    rows = imported(tmp_path / f"{name}_train_vit.pth", content, dataset)
    common = np.arange(25, 39)
    assert not rows["has_smpl"].any() and rows["has_3d"].all()
    assert (rows["joints3d_valid"] == np.isin(np.arange(49), common)).all()
    joints = content["joints3D"].numpy()[:, common].astype(np.float64)
    joints -= joints[:, [2, 3]].mean(1, keepdims=True)
    assert np.allclose(rows["joints3d"][:, common], joints, atol=1e-6)
    seen = content["joints2D"].numpy()[:, common, 2] if columns == 3 else np.ones((44, 14))
    assert np.array_equal(rows["keypoints2d"][:, common, 2], seen)
    assert np.array_equal(rows["keypoints2d"][:, common, :2] * seen[..., None],
                          content["joints2D"].numpy()[:, common, :2] * seen[..., None])  # fmt: skip
    assert set(rows["fps"]) == {50 if name == "human36m" else 25}


def test_insta_variety_has_the_stored_crops_and_no_3d(tmp_path: Path) -> None:
    content = wham_train("insta", columns=3)
    del content["gender"]
    content["vid"] = np.array(["a.tfrecord-0"] * 24 + ["a.tfrecord-1"] * 20)
    rows = imported(tmp_path / "insta_train_vit.pth", content, "insta_variety")
    assert not rows["has_3d"].any() and not rows["has_smpl"].any()
    assert (rows["bbox"] == [112, 112, 224, 224]).all() and rows["track_id"][30] == "a.tfrecord-1"
    seen = content["joints2D"].numpy()[..., 2] != 0
    slots = [SPIN49.index(name) for name in COCO17]
    assert np.array_equal(rows["keypoints2d"][:, slots, 2] == 1, seen)
    assert np.array_equal(rows["keypoints2d"][:, slots, :2][seen], content["kp2d"].numpy()[seen][:, :2])


def test_pieces_and_parts_across_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "PIECE_ROWS", 7)
    monkeypatch.setattr("pipelines.imports.feature_dbs.TEXT_ROWS", 5)
    content = wham_test(tracks=(24, 1, 20, 30))
    rows = imported(tmp_path / "3dpw_val_vit.pth", content, "3dpw", "validation")
    assert rows["feature"].tobytes() == b"".join(f[1:].numpy().tobytes() for f in content["features"])
    assert read_manifest(tmp_path / "out/3dpw/validation").tracks == 4


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    from pipelines.imports.wham_files import open_wham

    content = write_wham(tmp_path / "3dpw_test_vit.pth", wham_test(tracks=(40, 30, 20)))
    columns = open_wham(tmp_path / "3dpw_test_vit.pth", "3dpw").columns
    joined = columns["features"]
    assert isinstance(joined, sequences.Joined) and joined.shape == (90, 1024)
    whole = torch.cat([features[1:] for features in content["features"]]).numpy()
    for start, stop in ((0, 90), (0, 1), (39, 41), (38, 75), (70, 200), (90, 95)):
        assert np.array_equal(joined.rows(start, stop), whole[start:stop]), (start, stop)
    with (tmp_path / "3dpw_test_vit.pth").open("r+b") as file:  # nothing was kept
        file.write(b"\0" * (tmp_path / "3dpw_test_vit.pth").stat().st_size)
    assert not joined.rows(0, 90).any()


def test_a_bad_sequence_is_skipped_and_named(tmp_path: Path) -> None:
    content = wham_test(tracks=(20, 20, 20))
    content["bbox"][0] = content["bbox"][0][:5]
    content["features"][2] = content["features"][2][1:].clone()
    write_wham(tmp_path / "3dpw_test_vit.pth", content)
    assert run(tmp_path / "3dpw_test_vit.pth") == 1
    rows = rows_of(tmp_path / "out", "3dpw", "test")
    assert set(rows["track_id"]) == {"downtown_walk_01_0"} and len(rows["track_id"]) == 20
    skipped = {entry["what"]: entry["reason"] for entry in read_manifest(tmp_path / "out/3dpw/test").skipped}
    assert skipped == {
        "3dpw_test_vit.pth: downtown_walk_00_0": "no bbox for each frame",
        "3dpw_test_vit.pth: downtown_walk_02_0": "its first frame does not come twice, so it is no sequence of WHAM",
    }
    manifest = read_manifest(tmp_path / "out/3dpw/test")
    assert run(tmp_path / "3dpw_test_vit.pth", allow_skips=True) == 0
    assert read_manifest(tmp_path / "out/3dpw/test") == manifest


class Shapes(torch.nn.Module):
    """Some class of torch that a file may name."""


@pytest.mark.parametrize("key", ["extra", "vid"])
def test_nothing_is_executed(tmp_path: Path, key: str) -> None:
    write_wham(tmp_path / "3dpw_train_vit.pth", {**wham_train(), key: Evil(tmp_path / "ran")})
    with pytest.raises(InputError, match=r"refused, it asks for posix\.system"):
        run(tmp_path / "3dpw_train_vit.pth")
    write_wham(tmp_path / "3dpw_train_vit.pth", {**wham_train(), key: Shapes()})
    with pytest.raises(InputError, match=r"refused, it asks for .*Shapes"):
        run(tmp_path / "3dpw_train_vit.pth")
    assert not (tmp_path / "ran").exists() and not list((tmp_path / "out").rglob("manifest.json"))


@pytest.mark.parametrize("kept", [0.999, 0.6, 0.1, 0.01, 0.0])
def test_cut_files_are_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "3dpw_train_vit.pth"
    write_wham(path, wham_train())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match="incomplete|not a readable|no file of WHAM") as caught:
        run(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": torch.ones(44, 2048)}, "features have shape .2048,. per frame, but HMR2.0's have 1024"),
        ({"features": None}, "no features and vid in it, so it is no file of WHAM"),
        ({"vid": torch.zeros(43)}, r"vid has shape \(43,\), but features \(44, 1024\)"),
        ({"bbox": None}, "no bbox in it, so it is not a feature file of 3dpw"),
        ({"joints3D": torch.zeros(44, 49, 3)}, r"joints3D has shape \(49, 3\) per frame, expected \(31, 3\)"),
        ({"bbox": torch.zeros(44, 8)[:, ::2]}, "gaps between its numbers; save it contiguous"),
        ({"features": torch.ones(44, 1024, dtype=torch.bfloat16)}, "numbers of type bfloat16"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    content = {key: value for key, value in {**wham_train(), **change}.items() if value is not None}
    write_wham(tmp_path / "3dpw_train_vit.pth", content)
    with pytest.raises(InputError, match=reason):
        run(tmp_path / "3dpw_train_vit.pth")
    write_wham(tmp_path / "3dpw_train_vit.pth", wham_train())  # the folder is free for a better file
    assert run(tmp_path / "3dpw_train_vit.pth") == 0


def test_compressed_files_say_what_to_do(tmp_path: Path) -> None:
    joblib.dump(wham_train(), tmp_path / "3dpw_train_vit.pth", compress=3)
    with pytest.raises(InputError, match="load it and dump it uncompressed"):
        run(tmp_path / "3dpw_train_vit.pth")


def test_other_names_need_the_dataset_and_the_split(tmp_path: Path) -> None:
    write_wham(tmp_path / "mine.pth", wham_test())
    with pytest.raises(InputError, match="--dataset: give it"):
        run(tmp_path / "mine.pth")
    with pytest.raises(InputError, match="--split: give it"):
        run(tmp_path / "mine.pth", dataset="3dpw")
    with pytest.raises(InputError, match="--dataset posetrack: not known; choose one of 3dpw, human36m"):
        run(tmp_path / "mine.pth", dataset="posetrack", split="test")
    assert run(tmp_path / "mine.pth", dataset="3dpw", split="test") == 0
    os.rename(tmp_path / "mine.pth", tmp_path / "3pdw_test_vit.pth")  # as WHAM's own script spells it
    for options, reason in (
        ({"crop_scale": 1.2}, "--crop-scale: the boxes"),
        ({"preprocessing": "reference"}, "--preprocessing reference: is for"),
        ({"labels": (tmp_path / "3pdw_test_vit.pth",)}, "--labels .*: is for features of GVHMR"),
    ):
        with pytest.raises(InputError, match=reason):
            run(tmp_path / "3pdw_test_vit.pth", **options)
