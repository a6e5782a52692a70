"""Importing feature files: numbers are in the right columns, features are unchanged, left-out rows are counted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy as np
import pyarrow as pa
import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST, read_manifest, read_table
from glot.features.store import FeatureStore
from glot.human.crop import keypoints_to_crop
from glot.human.joints import COMMON14, SPIN49
from pipelines.checks.rules import check
from pipelines.checks.summary import Summary
from pipelines.decoders.dataset_facts import INSTA25
from pipelines.import_features import main
from pipelines.imports import importing, shares
from pipelines.imports.spec import ImportSpec
from tests.fixtures.feature_db import KNOWN, database, write_db
from tests.fixtures.insta_variety import name_of, write_h5

DATASETS = ("3dpw", "human36m", "mpi_inf_3dhp", "penn_action", "posetrack")
H36M = "s_01_act_02_subact_00_ca_01"
HIPS = [SPIN49.index("rhip"), SPIN49.index("lhip")]


def run(src: Path, out: Path, dataset: str, split: str = "train", **options: Any) -> int:
    options = {"crop_scale": None, "weights": None, "body": None, "preprocessing": "corrected", "allow_skips": False,
               **options}  # fmt: skip
    return main(ImportSpec(dataset=dataset, split=split, src=src, out=out, **options))


def rows_of(out: Path, dataset: str, split: str = "train") -> dict[str, Any]:
    """{column: (N, ...)} of a set that check_features finds nothing wrong with."""
    folder = out / dataset / split
    assert check(folder, read_manifest(folder), Summary()) == []
    table = read_table(folder)
    return {name: column(table[name]) for name in table.column_names}


def column(values: pa.ChunkedArray) -> Any:
    array, shape = values.combine_chunks(), [len(values)]
    while pa.types.is_fixed_size_list(array.type):
        shape.append(array.type.list_size)
        array = array.flatten()
    return array.to_pylist() if pa.types.is_string(array.type) else array.to_numpy(zero_copy_only=False).reshape(shape)


def imported(tmp_path: Path, dataset: str, content: dict[str, Any], split: str = "train", **options: Any) -> Any:
    joblib.dump(content, tmp_path / "db.pt")
    assert run(tmp_path / "db.pt", tmp_path / "out", dataset, split, **options) == 0
    return rows_of(tmp_path / "out", dataset, split)


@pytest.mark.parametrize("dataset", DATASETS)
def test_features_are_untouched_and_in_their_order(tmp_path: Path, dataset: str) -> None:
    content = database(dataset)
    content["features"][3, :4] = [-0.0, 1e-42, np.float32(3.4e38), 5]  # a negative zero, a denormal
    rows = imported(tmp_path, dataset, content)
    assert rows["feature"].tobytes() == content["features"].tobytes()
    assert np.array_equal(rows["bbox"], content["bbox"].astype(np.float32))
    manifest = read_manifest(tmp_path / "out" / dataset / "train")
    assert (manifest.rows, manifest.tracks, manifest.skipped) == (44, 2, [])
    assert manifest.backbone == {"name": "imported", "weights": "SPIN's, as imported", "hash": "imported",
                                 "feature_size": 2048}  # fmt: skip
    assert manifest.sources[0]["bytes"] == (tmp_path / "db.pt").stat().st_size
    assert len(manifest.sources[0]["sha256"]) == 16 and manifest.sources[0]["rows_in_file"] == 44
    assert FeatureStore.open(tmp_path / "out" / dataset / "train", cache=tmp_path / "cache").tracks[1].stop == 44


@pytest.mark.parametrize(
    ("dataset", "split", "tracks", "frames", "image", "fps"),
    [
        ("3dpw", "train", "walk_00_0", [0, 1], "imageFiles/walk_00/image_00000.jpg", 30),
        ("human36m", "train", f"{H36M}_S1", [0, 2], f"images/{H36M}/x_000001.jpg", 50),
        ("mpi_inf_3dhp", "train", "subj1_seq2_vid0_seg0", [0, 1], "S1/Seq2/video_0/000001.jpg", 50),
        ("mpi_inf_3dhp", "test", "subj0_seg0", [0, 1], "mpi_inf_3dhp_test_set/TS0/imageSequence/img_000001.jpg", 25),
        ("penn_action", "train", "0000", [0, 1], "frames/0000/000001.jpg", 30),
        ("posetrack", "train", "000000_bonn_train.json_0", [30, 31], "images/train/000000_bonn_train/000030.jpg", 25),
    ],
)  # fmt: skip
def test_names_frames_and_pictures(
    tmp_path: Path, dataset: str, split: str, tracks: str, frames: list[int], image: str, fps: float
) -> None:
    rows = imported(tmp_path, dataset, database(dataset, split), split)
    assert rows["track_id"][0] == tracks and len(set(rows["track_id"])) == 2
    assert rows["frame_index"][:2].tolist() == frames and rows["frame_index"][24] == frames[0]
    assert rows["image"][0] == image and set(rows["fps"]) == {fps} and set(rows["gender"]) == {"neutral"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_2d_joints_by_name(tmp_path: Path, dataset: str) -> None:
    content = database(dataset)
    rows = imported(tmp_path, dataset, content)
    order = COMMON14 if content["joints2D"].shape[1] == 14 else SPIN49
    for number, name in enumerate(order):
        wanted = content["joints2D"][:, number].astype(np.float32)
        assert np.array_equal(rows["keypoints2d"][:, SPIN49.index(name)], wanted), name
    absent = [slot for slot, name in enumerate(SPIN49) if name not in order]
    assert not rows["keypoints2d"][:, absent].any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_3dpw_joints_are_measured_from_the_hips(tmp_path: Path, split: str) -> None:
    content = database("3dpw", split)
    rows = imported(tmp_path, "3dpw", content, split)
    slots = slice(0, 49) if split == "train" else slice(25, 39)
    wanted = np.zeros((44, 49, 3))
    wanted[:, slots] = content["joints3D"]
    wanted[:, slots] -= wanted[:, HIPS].mean(1, keepdims=True)
    assert np.allclose(rows["joints3d"], wanted, atol=1e-6) and np.abs(rows["joints3d"]).max() < 3
    assert np.array_equal(rows["joints3d_valid"][0], np.isin(np.arange(49), np.arange(49)[slots]))
    assert rows["has_3d"].all() and rows["has_smpl"].all()
    assert np.array_equal(rows["valid"], content["valid"] == 1) and not rows["valid"].all()
    assert np.array_equal(rows["pose"].reshape(44, 72), content["pose"])
    assert np.array_equal(rows["betas"], content["shape"])


@pytest.mark.parametrize("dataset", ["human36m", "mpi_inf_3dhp"])
def test_joints_that_were_not_measured_are_not_minus_the_pelvis(tmp_path: Path, dataset: str) -> None:
    content = database(dataset)
    rows = imported(tmp_path, dataset, content)
    known = np.isin(np.arange(49), KNOWN)
    assert (rows["joints3d_valid"] == known).all() and not rows["joints3d"][:, ~known].any()
    wanted = content["joints3D"] - content["joints3D"][:, HIPS].mean(1, keepdims=True)
    assert np.allclose(rows["joints3d"][:, known], wanted[:, known], atol=1e-6)
    assert np.abs(rows["joints3d"][:, HIPS].mean(1)).max() < 1e-6


def test_frames_without_a_fit_have_no_smpl(tmp_path: Path) -> None:
    content = database("human36m")
    content["pose"][5:9], content["shape"][5:9] = 0, 0
    content["pose"][2, 7] = np.nan
    rows = imported(tmp_path, "human36m", content)
    lost = np.isin(np.arange(44), [2, 5, 6, 7, 8])
    assert np.array_equal(rows["has_smpl"], ~lost) and not rows["pose"][lost].any() and rows["has_3d"].all()
    counts = read_manifest(tmp_path / "out/human36m/train").sources[0]
    assert counts["rows_without_smpl"] == 5 and counts["smpl_not_finite"] == 1
    content["pose"][:], content["shape"][:] = 0, 0  # the files called nosmpl
    (tmp_path / "nosmpl").mkdir()
    assert not imported(tmp_path / "nosmpl", "human36m", content)["has_smpl"].any()


def test_2d_sets_have_no_3d_and_no_smpl(tmp_path: Path) -> None:
    rows = imported(tmp_path, "penn_action", database("penn_action"))
    assert not rows["has_3d"].any() and not rows["has_smpl"].any() and rows["valid"].all()
    assert not rows["joints3d_valid"].any()


def test_mpi_frames_that_are_not_valid_are_marked(tmp_path: Path) -> None:
    content = database("mpi_inf_3dhp", "test")
    rows = imported(tmp_path, "mpi_inf_3dhp", content, "test")
    assert np.array_equal(rows["valid"], content["valid_i"][:, 0] == 1) and not rows["valid"].all()


@pytest.mark.parametrize(
    ("name", "dataset", "scale"),
    [
        ("mpii3d_train_scale12_new_occ_db.pt", "mpi_inf_3dhp", 1.2),
        ("mpii3d_train_scale1_db.pt", "mpi_inf_3dhp", 1.0),
        ("h36m_test_front_25fps_tight_db.pt", "human36m", 1.0),
        ("h36m_train_25fps_occ_db.pt", "human36m", 1.2),
        ("3dpw_train_db.pt", "3dpw", 1.3),
        ("posetrack_train_db.pt", "posetrack", 1.3),
    ],
)
def test_targets_have_the_scale_of_the_features(tmp_path: Path, name: str, dataset: str, scale: float) -> None:
    write_db(tmp_path / name, dataset)
    assert run(tmp_path / name, tmp_path / "a", dataset) == 0
    assert set(rows_of(tmp_path / "a", dataset)["crop_scale"]) == {np.float32(scale)}
    assert run(tmp_path / name, tmp_path / "b", dataset, crop_scale=1.25) == 0
    assert set(rows_of(tmp_path / "b", dataset)["crop_scale"]) == {np.float32(1.25)}
    assert run(tmp_path / name, tmp_path / "c", dataset, preprocessing="reference") == 0
    assert set(rows_of(tmp_path / "c", dataset)["crop_scale"]) == {np.float32(1.2)}
    assert read_manifest(tmp_path / "c" / dataset / "train").crop["scale"] == scale


def test_the_reference_keeps_what_the_published_code_trains_on(tmp_path: Path) -> None:
    content = database("3dpw")
    rows = imported(tmp_path, "3dpw", content, preprocessing="reference")
    assert np.array_equal(rows["joints3d"], content["joints3D"].astype(np.float16).astype(np.float32))
    assert np.array_equal(rows["betas"], content["shape"].astype(np.float16).astype(np.float32))
    assert rows["feature"].tobytes() == content["features"].tobytes()


def test_insta_h5(tmp_path: Path) -> None:
    content = write_h5(tmp_path / "insta_train_db.h5")
    assert run(tmp_path / "insta_train_db.h5", tmp_path / "out", "insta_variety") == 0
    rows = rows_of(tmp_path / "out", "insta_variety")
    assert rows["feature"].tobytes() == content["features"].tobytes()
    assert rows["track_id"][0] == f"{name_of(0)}-0" and rows["track_id"][-1] == f"{name_of(0)}-1"
    assert rows["image"][22] == f"train/{name_of(0)}#1/2" and rows["frame_index"][22] == 2
    targets = keypoints_to_crop(rows["keypoints2d"], rows["bbox"], rows["crop_scale"])
    for number, name in enumerate(INSTA25):
        seen = content["joints2D"][:, number, 2] > 0
        wanted = 2 * content["joints2D"][seen, number, :2] / 224 - 1
        assert np.allclose(targets[seen, SPIN49.index(name), :2], wanted, atol=1e-5), name
    assert not rows["keypoints2d"][rows["keypoints2d"][..., 2] == 0].any()
    with pytest.raises(InputError, match="crops already"):
        run(tmp_path / "insta_train_db.h5", tmp_path / "b", "insta_variety", crop_scale=1.2)


def test_h5_in_compressed_chunks_of_few_columns(tmp_path: Path) -> None:
    content = write_h5(tmp_path / "a.h5", tracks=(30, 17, 40), chunks=True, compression="gzip")
    assert run(tmp_path / "a.h5", tmp_path / "out", "insta_variety") == 0
    assert rows_of(tmp_path / "out", "insta_variety")["feature"].tobytes() == content["features"].tobytes()


def test_tracks_longer_than_a_piece_and_sets_of_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "PIECE_ROWS", 16)
    monkeypatch.setattr(shares, "PART_ROWS", 40)
    content = database("3dpw", tracks=(50, 20, 20, 3))
    rows = imported(tmp_path, "3dpw", content)
    manifest = read_manifest(tmp_path / "out/3dpw/train")
    assert [(part["rows"], part["tracks"]) for part in manifest.parts] == [(50, 1), (40, 2), (3, 1)]
    assert (manifest.rows, manifest.tracks) == (93, 4) and rows["feature"].tobytes() == content["features"].tobytes()
    assert manifest.sources[0]["tracks_shorter_than_a_window"] == 1


def test_names_that_come_back_and_time_that_goes_back_make_new_tracks(tmp_path: Path) -> None:
    content = database("3dpw", tracks=(20, 20, 20, 20))
    content["vid_name"][40:60] = content["vid_name"][0]  # a new track; the published code adds it to the first
    content["vid_name"][60:] = content["vid_name"][20]
    content["frame_id"][70:80] = np.arange(10)  # frames start again at 0 without a new name
    rows = imported(tmp_path, "3dpw", content)
    expected = ["walk_00_0"] * 20 + ["walk_01_0"] * 20 + ["walk_00_0~2"] * 20 + ["walk_01_0~2"] * 10
    assert rows["track_id"] == [*expected, *["walk_01_0~3"] * 10]
    counts = read_manifest(tmp_path / "out/3dpw/train").sources[0]
    assert counts["tracks_of_a_name_used_before"] == 3 and counts["tracks_cut_where_time_goes_back"] == 1


def test_neighbouring_tracks_are_separate_at_the_edge_of_a_block_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.imports.feature_dbs.TEXT_ROWS", 7)
    content = database("3dpw", tracks=(7, 14, 6, 20))
    content["frame_id"] = np.arange(47)  # only names tell the tracks apart
    rows = imported(tmp_path, "3dpw", content)
    assert rows["track_id"] == content["vid_name"].tolist()
    assert rows["frame_index"].tolist() == content["frame_id"].tolist()


def test_rows_that_cannot_be_used_are_left_out_named_and_counted(tmp_path: Path) -> None:
    content = database("3dpw")
    content["bbox"][3, 2:] = np.inf  # what the zeros of the old median make
    content["bbox"][25, 2:] = 0
    content["bbox"][26] = np.nan
    content["features"][4, 9] = np.nan
    content["features"][5] = 0
    joblib.dump(content, tmp_path / "db.pt")
    assert run(tmp_path / "db.pt", tmp_path / "out", "3dpw") == 1
    assert run(tmp_path / "db.pt", tmp_path / "out", "3dpw", allow_skips=True) == 0
    rows = rows_of(tmp_path / "out", "3dpw")
    kept = ~np.isin(np.arange(44), [3, 4, 5, 25, 26])
    assert rows["feature"].tobytes() == content["features"][kept].tobytes()
    assert rows["frame_index"].tolist() == content["frame_id"][kept].tolist()
    skipped = {(e["what"], e["reason"]): e["frames"] for e in read_manifest(tmp_path / "out/3dpw/train").skipped}
    assert skipped == {
        ("db.pt: walk_00_0", "a box without a finite, positive size"): 1,
        ("db.pt: walk_00_0", "features with NaN or infinite values"): 1,
        ("db.pt: walk_00_0", "features that are all zero"): 1,
        ("db.pt: walk_01_0", "a box without a finite, positive size"): 2,
    }


def test_broken_joints_and_oblong_boxes_are_mended_and_counted(tmp_path: Path) -> None:
    content = database("3dpw")
    content["joints2D"][2, 5] = [np.nan, 3, 1]
    content["joints2D"][3, 5, 2] = 7
    content["joints3D"][6, 40] = np.inf
    content["joints3D"][7, 30] = np.nan
    content["bbox"][8, 3] *= 2
    rows = imported(tmp_path, "3dpw", content)
    assert not rows["keypoints2d"][2, SPIN49.index(COMMON14[5])].any()
    assert rows["keypoints2d"][3, SPIN49.index(COMMON14[5]), 2] == 1
    assert not rows["joints3d_valid"][6, 40] and rows["joints3d_valid"][6].sum() == 48 and rows["has_3d"][6]
    assert not rows["has_3d"][7] and not rows["joints3d_valid"][7].any() and not rows["joints3d"][7].any()
    assert rows["bbox"][8, 2] == rows["bbox"][8, 3] == np.float32(content["bbox"][8, 3])
    counts = read_manifest(tmp_path / "out/3dpw/train").sources[0]
    assert {name: counts[name] for name in counts if "not_finite" in name or "boxes" in name or "conf" in name} == {
        "joints2d_not_finite": 1, "joints3d_not_finite": 2, "boxes_made_square": 1, "confidences_outside_0_to_1": 1,
    }  # fmt: skip


def test_old_types_are_read_where_nothing_is_lost(tmp_path: Path) -> None:
    content = database("3dpw")
    wanted = content["features"].astype(np.float16).astype(np.float32)
    for number, kind in enumerate((">f4", "<f2", "<f8")):
        folder = tmp_path / str(number)
        folder.mkdir()
        changed = {**content, "features": wanted.astype(kind), "vid_name": content["vid_name"].astype("S")}
        changed["frame_id"], changed["img_name"] = content["frame_id"].astype(">i2"), content["img_name"].astype(object)
        rows = imported(folder, "3dpw", changed)
        assert rows["feature"].tobytes() == wanted.tobytes() and rows["track_id"] == content["vid_name"].tolist()
        assert rows["image"][0] == "imageFiles/walk_00/image_00000.jpg"
    content["features"] = content["features"].astype(np.float64) + 1e-12
    joblib.dump(content, tmp_path / "db.pt")
    with pytest.raises(InputError, match="features are float64 and lose digits"):
        run(tmp_path / "db.pt", tmp_path / "out", "3dpw")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": None}, "no features in it, so it is not a feature file of 3dpw"),
        ({"vid_name": None, "bbox": None}, "no vid_name, bbox in it"),
        ({"pose": np.zeros((43, 72), np.float32)}, r"pose has shape \(43, 72\), but features has 44 rows"),
        ({"joints2D": np.zeros((44, 25, 3))}, r"joints2D has shape \(25, 3\) per row, 3dpw has \(49, 3\) or \(14, 3\)"),
        ({"shape": np.zeros((44, 9))}, r"shape has shape \(9,\) per row, expected \(10,\)"),
        ({"bbox": np.array(["x"] * 44)}, "bbox holds <U1, not numbers"),
        ({"frame_id": np.array(["none"] * 44)}, "frame_id of row 0 is 'none', not the number of a frame"),
        ({"frame_id": np.arange(44) - 5}, "frame -5 in row 0"),
        (
            {"features": np.zeros((44, 2048), np.float32)},
            "none of its rows can be used; the first reason: .*: features that are",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    content = {key: value for key, value in {**database("3dpw"), **change}.items() if value is not None}
    joblib.dump(content, tmp_path / "db.pt")
    with pytest.raises(InputError, match=reason):
        run(tmp_path / "db.pt", tmp_path / "out", "3dpw")
    write_db(tmp_path / "good.pt", "3dpw")  # the folder is free for a better file
    assert run(tmp_path / "good.pt", tmp_path / "out", "3dpw") == 0


def test_links_in_an_h5_are_refused(tmp_path: Path) -> None:
    write_h5(tmp_path / "other.h5")
    write_h5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("other.h5", "/features")
    with pytest.raises(InputError, match="features is a link to another place"):
        run(tmp_path / "a.h5", tmp_path / "out", "insta_variety")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["features"]
        file.create_dataset("features", (37, 2048), "f4", external=[(str(tmp_path / "other.h5"), 0, 37 * 2048 * 4)])
    with pytest.raises(InputError, match="keeps its values in other files"):
        run(tmp_path / "a.h5", tmp_path / "out", "insta_variety")


def test_a_cut_h5_is_refused(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:200_000])
    with pytest.raises(InputError, match="cannot be read as HDF5 .*truncated"):
        run(tmp_path / "a.h5", tmp_path / "out", "insta_variety")


class Evil:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.flag}",)


def test_the_command_prints_one_line_and_executes_nothing(tmp_path: Path) -> None:
    joblib.dump({**database("3dpw"), "extra": Evil(tmp_path / "ran")}, tmp_path / "db.pt")
    command = [sys.executable, "-m", "pipelines.import_features", "--dataset", "3dpw", "--split", "train"]
    done = subprocess.run(
        [*command, "--src", str(tmp_path / "db.pt"), "--out", str(tmp_path / "out")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "refused, it asks for posix.system" in line
    assert not (tmp_path / "ran").exists() and not list((tmp_path / "out").rglob(MANIFEST))


def test_a_second_run_changes_nothing_and_another_file_is_refused(tmp_path: Path) -> None:
    write_db(tmp_path / "a.pt", "3dpw")
    write_db(tmp_path / "b.pt", "3dpw", seed=1)
    assert run(tmp_path / "a.pt", tmp_path / "out", "3dpw") == 0
    folder = tmp_path / "out" / "3dpw" / "train"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    manifest = (folder / MANIFEST).read_text()
    (tmp_path / "a.pt").rename(tmp_path / "moved.pt")
    os.rename(tmp_path / "moved.pt", tmp_path / "a.pt")
    assert run(tmp_path / "a.pt", tmp_path / "out", "3dpw") == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")} == before
    assert (folder / MANIFEST).read_text() == manifest
    with pytest.raises(InputError, match="started with source name a.pt.*but this command has name b.pt"):
        run(tmp_path / "b.pt", tmp_path / "out", "3dpw")
    with pytest.raises(InputError, match="started with crop"):
        run(tmp_path / "a.pt", tmp_path / "out", "3dpw", preprocessing="reference")
    assert (folder / MANIFEST).read_text() == manifest


def test_an_interrupted_import_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "PART_ROWS", 20)
    content = database("3dpw", tracks=(20, 20, 20))
    content["joints2D"][[2, 45], 5] = np.nan
    joblib.dump(content, tmp_path / "db.pt")
    real, calls = importing.write_fragment, []

    def stops(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(importing, "write_fragment", stops)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "db.pt", tmp_path / "out", "3dpw")
    folder = tmp_path / "out" / "3dpw" / "train"
    assert not (folder / MANIFEST).exists()
    first = (folder / "part-000000000.parquet").stat().st_mtime_ns
    assert run(tmp_path / "db.pt", tmp_path / "out", "3dpw") == 0
    assert len(calls) == 4 and (folder / "part-000000000.parquet").stat().st_mtime_ns == first
    assert rows_of(tmp_path / "out", "3dpw")["feature"].tobytes() == content["features"].tobytes()
    assert json.loads((folder / MANIFEST).read_text())["sources"][0]["joints2d_not_finite"] == 2


def test_compressed_files_leave_nothing_behind(tmp_path: Path) -> None:
    content = database("posetrack")
    joblib.dump(content, tmp_path / "db.pt", compress=1)
    (tmp_path / "out/posetrack/train/.uncompressed-old").mkdir(parents=True)  # left by an import that was killed
    assert run(tmp_path / "db.pt", tmp_path / "out", "posetrack") == 0
    assert rows_of(tmp_path / "out", "posetrack")["feature"].tobytes() == content["features"].tobytes()
    assert not list((tmp_path / "out").rglob(".uncompressed*"))


def test_unknown_words_are_refused(tmp_path: Path) -> None:
    write_db(tmp_path / "db.pt", "3dpw")
    for options, reason in (
        ({"dataset": "amass"}, "--dataset amass: not known; choose one of 3dpw, human36m"),
        ({"split": "val"}, "--split val: not known; choose one of train, validation, test"),
        ({"preprocessing": "both"}, "--preprocessing both: choose corrected or reference"),
        ({"src": tmp_path / "gone"}, "there is no such file"),
        ({"src": tmp_path / "gone", "weights": tmp_path / "gone"}, "2 things are missing"),
        ({"body": tmp_path / "gone"}, "--body .*gone: there is no such file or folder"),
        ({"crop_scale": 0.01}, "--crop-scale 0.01: must be at least 0.1"),
        ({"out": tmp_path / "db.pt"}, "--out .*db.pt: is a file; give a folder"),
    ):
        with pytest.raises(InputError, match=reason):
            run(**{"src": tmp_path / "db.pt", "out": tmp_path / "out", "dataset": "3dpw", **options})


def test_the_set_and_the_body_are_in_the_home_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    write_db(tmp_path / "db.pt", "3dpw")
    spec = ImportSpec(dataset="3dpw", split="train", src=tmp_path / "db.pt")
    assert spec.folder == tmp_path / "features" / "3dpw" / "train" and spec.body is None
    (tmp_path / "body").mkdir()
    (tmp_path / "body" / "SMPL_NEUTRAL.npz").touch()
    assert ImportSpec(dataset="3dpw", split="train", src=tmp_path / "db.pt").body == tmp_path / "body"
