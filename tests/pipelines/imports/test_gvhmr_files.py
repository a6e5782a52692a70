"""GVHMR's files: features are unchanged, labels are turned into the camera frame, bad videos are skipped."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from glot.errors import InputError
from glot.features.schema import read_manifest
from glot.features.store import FeatureStore
from pipelines.import_features import main
from pipelines.imports.spec import ImportSpec
from tests.fixtures.gvhmr_content import VIDEOS, labels, video, write_videos
from tests.fixtures.hmr2 import write_hmr2
from tests.pipelines.imports.test_import_features import Evil, rows_of


def run(src: Path, **options: Any) -> int:
    options = {"dataset": "3dpw", "split": "test", **options}
    return main(ImportSpec(src=src, out=src.parent / "out", body=None, **options))


def features_of(contents: dict[str, dict[str, Any]]) -> bytes:
    return b"".join(content["features"].numpy().tobytes() for content in contents.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_features_are_untouched(tmp_path: Path, dtype: torch.dtype) -> None:
    contents = write_videos(tmp_path / "feats", dtype=dtype)
    contents["downtown_walk_00_0"]["features"][0, :3] = torch.tensor([-0.0, 6e-8, 65504.0])
    torch.save(contents["downtown_walk_00_0"], tmp_path / "feats/downtown_walk_00_0.pt")
    assert run(tmp_path / "feats") == 0
    rows = rows_of(tmp_path / "out", "3dpw", "test")
    kind = str(dtype).removeprefix("torch.")
    assert rows["feature"].dtype == kind and rows["feature"].tobytes() == features_of(contents)
    assert rows["track_id"] == [name for name, count in VIDEOS.items() for _ in range(count)]
    assert rows["frame_index"].tolist() == [*range(24), *range(20)]
    boxes = torch.cat([content["bbx_xys"] for content in contents.values()]).numpy()
    assert np.array_equal(rows["bbox"], boxes[:, [0, 1, 2, 2]]) and set(rows["crop_scale"]) == {1}
    assert not rows["has_smpl"].any() and not rows["keypoints2d"].any() and rows["valid"].all()
    manifest = read_manifest(tmp_path / "out/3dpw/test")
    assert manifest.backbone == {
        "name": "hmr2", "weights": "epoch=10-step=25000.ckpt, as GVHMR used it", "hash": "imported-hmr2-gvhmr",
        "feature_size": 1024, "crop_rule": "gvhmr", **({"dtype": "float16"} if dtype == torch.float16 else {}),
    }  # fmt: skip
    assert "blurred over 5 x 5" in manifest.crop["rule"]
    sizes = [file.stat().st_size for file in (tmp_path / "feats").iterdir()]
    assert manifest.sources[0]["bytes"] == sum(sizes) and manifest.sources[0]["rows_in_file"] == 44
    store = FeatureStore.open(tmp_path / "out/3dpw/test", cache=tmp_path / "cache")
    read = np.asarray(store.features_of(np.arange(44)), np.float32)
    whole = torch.cat([content["features"].float() for content in contents.values()]).numpy()
    assert read.tobytes() == whole.tobytes()


def test_float16_and_float32_in_one_folder_are_kept_as_float32(tmp_path: Path) -> None:
    contents = write_videos(tmp_path / "feats")
    contents["downtown_walk_00_1"]["features"] = contents["downtown_walk_00_1"]["features"].float() + 1e-6
    torch.save(contents["downtown_walk_00_1"], tmp_path / "feats/downtown_walk_00_1.pt")
    assert run(tmp_path / "feats") == 0
    whole = torch.cat([content["features"].float() for content in contents.values()]).numpy()
    assert rows_of(tmp_path / "out", "3dpw", "test")["feature"].tobytes() == whole.tobytes()


def test_labels_beside_are_turned_into_the_camera_frame(tmp_path: Path) -> None:
    contents = write_videos(tmp_path / "feats")
    truth = {"downtown_walk_00_0": labels(24)}
    points = {name: torch.rand(count, 17, 3) * 0.5 + 0.2 for name, count in VIDEOS.items()}
    torch.save(truth, tmp_path / "test_3dpw_gt_labels.pt")
    torch.save(points, tmp_path / "preproc_test_kp2d_v0.pt")
    files = (tmp_path / "test_3dpw_gt_labels.pt", tmp_path / "preproc_test_kp2d_v0.pt")
    assert run(tmp_path / "feats", labels=files) == 0
    rows = rows_of(tmp_path / "out", "3dpw", "test")
    first = np.arange(44) < 24
    assert rows["feature"].tobytes() == features_of(contents)
    assert np.array_equal(rows["has_smpl"], first) and not rows["pose"][~first].any()
    smpl = truth["downtown_walk_00_0"]["smpl_params"]
    assert np.array_equal(rows["pose"][first, 1:].reshape(24, 69), smpl["body_pose"].numpy())
    assert np.array_equal(rows["betas"][first], smpl["betas"].numpy())
    wanted = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec([0, 0.4, 0])
    assert np.allclose(Rotation.from_rotvec(rows["pose"][0, 0]).as_matrix(), wanted.as_matrix(), atol=1e-6)
    assert np.array_equal(rows["valid"], np.arange(44) != 3)
    assert rows["gender"] == ["female"] * 24 + ["neutral"] * 20
    seen = np.concatenate([value.numpy()[..., 2] > 0.3 for value in points.values()])
    assert np.array_equal(rows["keypoints2d"][..., 2].sum(1), seen.sum(1))


def test_cameras_that_are_no_rotations_and_smplx_give_no_pose(tmp_path: Path) -> None:
    contents = {"a": video(20) | labels(20), "b": video(20, seed=1) | labels(20)}
    contents["a"]["T_w2c"][4, :3, :3] *= 2
    contents["b"]["smpl_params"]["body_pose"] = torch.zeros(20, 63)
    torch.save(contents, tmp_path / "emdb_vit_v4.pt")
    assert run(tmp_path / "emdb_vit_v4.pt", dataset="emdb") == 0
    rows = rows_of(tmp_path / "out", "emdb", "test")
    assert np.array_equal(rows["has_smpl"], (np.arange(40) < 20) & (np.arange(40) != 4))


def test_one_file_with_a_dict_of_videos_and_folders_in_folders(tmp_path: Path) -> None:
    contents = {f"S1/{name}": video(20, seed=seed) for seed, name in enumerate("ab")}
    torch.save(contents, tmp_path / "vitfeat_h36m.pt")
    assert run(tmp_path / "vitfeat_h36m.pt", dataset="human36m", split="train") == 0
    rows = rows_of(tmp_path / "out", "human36m", "train")
    assert rows["feature"].tobytes() == features_of(contents) and set(rows["fps"]) == {25}
    (tmp_path / "bedlam/scene").mkdir(parents=True)
    torch.save({**contents["S1/a"], "start_end": torch.tensor([7, 27])}, tmp_path / "bedlam/scene/seq.mp4-posed.pt")
    torch.save({**contents["S1/b"], "start_end": (3, 23)}, tmp_path / "bedlam/scene/seq.mp4-stood.pt")
    assert run(tmp_path / "bedlam", dataset="bedlam", split="train") == 0
    rows = rows_of(tmp_path / "out", "bedlam", "train")
    assert rows["track_id"][0] == "scene/seq.mp4-posed" and rows["track_id"][-1] == "scene/seq.mp4-stood"
    assert rows["frame_index"].tolist() == [*range(7, 27), *range(3, 23)]


def test_bad_videos_are_skipped_and_named(tmp_path: Path) -> None:
    contents = write_videos(tmp_path / "feats")
    whole = (tmp_path / "feats/downtown_walk_00_0.pt").read_bytes()
    (tmp_path / "feats/cut.pt").write_bytes(whole[:9000])
    with zipfile.ZipFile(tmp_path / "feats/downtown_walk_00_0.pt") as archive:
        start = archive.getinfo("downtown_walk_00_0/data/0").header_offset
    (tmp_path / "feats/damaged.pt").write_bytes(whole[:start] + b"XXXX" + whole[start + 4 :])
    torch.save(video(), tmp_path / "feats/old.pt", _use_new_zipfile_serialization=False)
    torch.save({"bbx_xys": torch.ones(9, 3)}, tmp_path / "feats/none.pt")
    torch.save({**video(), "bbx_xys": torch.ones(9, 3)}, tmp_path / "feats/short.pt")
    torch.save({**video(), "features": torch.ones(24, 2048)}, tmp_path / "feats/wide.pt")
    torch.save(video(0), tmp_path / "feats/zero.pt")
    torch.save({**video(), "features": Evil(tmp_path / "ran")}, tmp_path / "feats/hostile.pt")
    assert run(tmp_path / "feats") == 1
    assert not (tmp_path / "ran").exists()
    assert rows_of(tmp_path / "out", "3dpw", "test")["feature"].tobytes() == features_of(contents)
    manifest = read_manifest(tmp_path / "out/3dpw/test")
    reasons = {entry["what"]: entry["reason"] for entry in manifest.skipped}
    for name, reason in {
        "cut": "no whole file", "damaged": "not in the file", "old": "torch 1.5 or older", "none": "no features in it",
        "short": "bbox has shape", "wide": "HMR2.0's have 1024", "zero": "no frames", "hostile": "no features in it",
    }.items():  # fmt: skip
        assert reason in reasons.pop(f"feats: {name}"), name
    assert not reasons
    assert run(tmp_path / "feats", allow_skips=True) == 0 and read_manifest(tmp_path / "out/3dpw/test") == manifest
    (tmp_path / "feats/cut.pt").unlink()
    with pytest.raises(InputError, match="started with source"):
        run(tmp_path / "feats")


def test_with_the_weights_the_set_fits_those_that_were_extracted(tmp_path: Path) -> None:
    from glot.features.backbones.backbone import load_backbone

    write_videos(tmp_path / "feats")
    weights = write_hmr2(tmp_path / "hmr2a.ckpt")
    assert run(tmp_path / "feats", weights=weights) == 0
    backbone = read_manifest(tmp_path / "out/3dpw/test").backbone
    assert backbone["weights"] == "hmr2a.ckpt"
    assert backbone["hash"] == load_backbone("hmr2", weights, crop_rule="gvhmr").hash
    assert backbone["hash"] != load_backbone("hmr2", weights, crop_rule="wham").hash


def test_what_is_no_file_of_gvhmr_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feats").mkdir()
    with pytest.raises(InputError, match=r"no \.pt files in this folder"):
        run(tmp_path / "feats")
    with pytest.raises(InputError, match="there is no such file or folder"):
        run(tmp_path / "gone")
    torch.save(video(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="torch 1.5 or older"):
        run(tmp_path / "old.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list, not the features of videos"):
        run(tmp_path / "list.pt")
    torch.save({"a": {"bbx_xys": torch.ones(3, 3)}}, tmp_path / "none.pt")
    with pytest.raises(InputError, match="none of its sequences can be used: .*a: no features in it"):
        run(tmp_path / "none.pt")
    write_videos(tmp_path / "feats")
    with pytest.raises(InputError, match="list.pt: holds a list, not a dict of videos"):
        run(tmp_path / "feats", labels=(tmp_path / "list.pt",))
