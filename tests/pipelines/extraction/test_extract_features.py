"""Extraction with real Ray, pickles and JPEGs: the rows are those of a plain loop, also after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.schema import MANIFEST, read_manifest, read_table
from glot.human.body import load_body
from glot.human.crop import crop_image, normalise
from pipelines.decoders.threedpw import decode, find_units
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from pipelines.jobs import worker_pool
from pipelines.scenes.legacy_pickle import dump
from pipelines.sets.fragments import UNITS
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.settings import RECORDS
from tests.fixtures.places import ROOT
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.voc import write_voc

SCRIPT = ROOT / "pipelines" / "extract_features.py"
torch.set_num_threads(1)  # several threads on busy cores slow each other down


@pytest.fixture(scope="module", autouse=True)
def ray(local_ray: None) -> None:
    """For all tests of this module: extraction joins the Ray that its process has started."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two files with different weights."""
    folder = tmp_path_factory.mktemp("weights")
    state = load_backbone().module.state_dict()
    save_file(state, folder / "one.safetensors")
    save_file({**state, "conv1.weight": state["conv1.weight"] * 1.1}, folder / "two.safetensors")
    return folder / "one.safetensors", folder / "two.safetensors"


def run(root: Path, out: Path, **options: Any) -> int:
    options = {"split": "test", "workers": 2, "batch_size": 8, "allow_skips": False, "weights": None, **options}
    return main(ExtractSpec(dataset="3dpw", root=root, out=out, **options))


def dataset(root: Path, *, sequences: int = 2, frames: int = 6) -> Path:
    for seed in range(sequences):
        write_sequence(root, f"walk_{seed:02d}", frames=frames, seed=seed)
    return root


def same_rows(one: Path, other: Path) -> bool:
    return read_table(one / "3dpw" / "test").equals(read_table(other / "3dpw" / "test"))


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.glob("*"))}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(root, out) of an extraction without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    root = dataset(folder / "3dpw", sequences=4)
    for split in ("train", "validation"):
        write_sequence(root, f"{split}_00", split=split, frames=2, people=1)
    assert run(root, folder / "features", split="all") == 0
    return root, folder / "features"


def test_features_are_those_of_a_plain_loop(undisturbed: tuple[Path, Path]) -> None:
    root, out = undisturbed
    table = read_table(out / "3dpw" / "test")
    module, body = load_backbone().module, load_body()
    row = 0
    for unit in find_units(root, "test"):
        for clip in decode(root, unit, body, "corrected").clips:
            pictures = [cv2.imread(str(root / image)) for image in clip.image]
            crops = [crop_image(picture, box, 1.2) for picture, box in zip(pictures, clip.bbox, strict=True)]
            with torch.no_grad():
                wanted = module(normalise(torch.from_numpy(np.stack(crops)))).numpy()
            rows = table[row : row + len(clip)]
            assert np.abs(np.array(rows["feature"].to_pylist()) - wanted).max() < 1e-5 * np.abs(wanted).max()
            assert set(rows["track_id"].to_pylist()) == {clip.track_id}
            assert rows["frame_index"].to_pylist() == clip.frame_index.tolist()
            row += len(clip)
    assert row == len(table) == read_manifest(out / "3dpw" / "test").rows


def test_a_second_run_adds_nothing_and_touches_nothing(
    undisturbed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = undisturbed
    before = {key: value for key, value in state(out / "3dpw" / "test").items() if not key.endswith(MANIFEST)}
    manifest = (out / "3dpw" / "test" / MANIFEST).read_text()
    start = time.monotonic()
    assert run(root, out) == 0
    assert time.monotonic() - start < 60
    assert "all of them done before" in capsys.readouterr().out
    after = state(out / "3dpw" / "test")
    assert all(after[key] == value for key, value in before.items())
    assert (out / "3dpw" / "test" / MANIFEST).read_text() == manifest


def test_other_weights_do_not_go_into_the_same_folder(
    undisturbed: tuple[Path, Path], weights: tuple[Path, Path]
) -> None:
    root, out = undisturbed
    manifest = read_manifest(out / "3dpw" / "test")
    assert run(root, out, weights=weights[0]) == 0  # the same numbers from another file
    assert read_manifest(out / "3dpw" / "test").parts == manifest.parts
    with pytest.raises(InputError, match=r"started with backbone .*hash .*two.safetensors.*give another --out"):
        run(root, out, weights=weights[1])


def wait_for_a_fragment(folder: Path, process: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 120
    while not list(folder.glob("*.parquet")):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.slow
def test_after_a_kill_the_same_command_gives_the_same_rows(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = undisturbed
    command = [sys.executable, str(SCRIPT), "--dataset", "3dpw", "--root", str(root), "--split", "test"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--out", str(tmp_path), "--workers", "1"], env=environment)
    folder = tmp_path / "3dpw" / "test"
    wait_for_a_fragment(folder / RECORDS / UNITS, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / MANIFEST).exists()
    time.sleep(3)  # until Ray notices that its driver has died and ends the workers
    assert 1 <= len(list((folder / RECORDS / UNITS).glob("*.parquet"))) < 4
    assert run(root, tmp_path) == 0
    assert same_rows(tmp_path, out)
    assert read_manifest(folder).parts == read_manifest(out / "3dpw" / "test").parts


def test_broken_files_are_skipped_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = dataset(tmp_path / "3dpw", sequences=3)
    picture = root / "imageFiles" / "walk_01" / "image_00001.jpg"
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    (root / "imageFiles" / "walk_01" / "image_00002.jpg").unlink()
    dump({"not": "a sequence"}, root / "sequenceFiles" / "test" / "walk_02.pkl")
    assert run(root, tmp_path / "features") == 1
    printed = capsys.readouterr().out
    assert "image_00001.jpg: truncated JPEG" in printed and "--allow-skips" in printed
    folder = tmp_path / "features" / "3dpw" / "test"
    manifest = read_manifest(folder)
    assert [(entry["what"], entry["frames"]) for entry in manifest.skipped] == [
        ("imageFiles/walk_01/image_00001.jpg", 1),
        ("imageFiles/walk_01/image_00002.jpg", 1),
        ("sequenceFiles/test/walk_02.pkl", 6),
    ]
    assert "no poses, poses2d" in manifest.skipped[2]["reason"]
    frames = read_table(folder).to_pandas().groupby("track_id")["frame_index"].apply(list)
    assert frames["walk_01_1"] == [0, 3, 4, 5] and list(frames.index) == [
        "walk_00_0", "walk_00_1", "walk_01_0", "walk_01_1",
    ]  # fmt: skip
    # With --allow-skips the folder is complete as it is. After a repair, only the broken units are extracted again.
    assert run(root, tmp_path / "features", allow_skips=True) == 0
    capsys.readouterr()
    picture.write_bytes(whole)
    assert run(root, tmp_path / "features") == 1
    assert "1 changed, 2 as before" in capsys.readouterr().out
    entries = read_manifest(folder).skipped
    assert sorted(entry["what"][-15:] for entry in entries) == ["est/walk_02.pkl", "image_00002.jpg"]
    assert sorted(id for id in read_outcomes(folder)) == ["0000/walk_00", "0000/walk_02", "0001/walk_01"]
    assert len(read_table(folder)) == manifest.rows + 2  # two people


def test_nothing_readable_leaves_no_set(tmp_path: Path) -> None:
    root = dataset(tmp_path / "3dpw", sequences=1, frames=2)
    for split in ("train", "validation"):
        write_sequence(root, f"{split}_00", split=split, frames=2, people=1)
    (root / "sequenceFiles" / "train" / "train_00.pkl").write_bytes(b"garbage")
    with pytest.raises(InputError, match="nothing could be extracted.*train_00.pkl.*not a readable pickle"):
        run(root, tmp_path / "features", split="all", allow_skips=True)
    assert not (tmp_path / "features" / "3dpw" / "train" / MANIFEST).exists()
    assert (tmp_path / "features" / "3dpw" / "test" / MANIFEST).exists()  # the other splits have their manifests


def test_all_splits_in_one_run(undisturbed: tuple[Path, Path]) -> None:
    for split in ("train", "validation"):
        table = read_table(undisturbed[1] / "3dpw" / split)
        assert set(table["split"].to_pylist()) == {split} and set(table["track_id"].to_pylist()) == {f"{split}_00_0"}


def test_mistakes_are_reported_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = dataset(tmp_path / "3dpw", sequences=1)
    monkeypatch.setattr(worker_pool, "ray_session", lambda: pytest.fail("Ray was started"))
    out = tmp_path / "features"
    for options, reason in (
        ({"root": tmp_path / "gone"}, "gone: there is no such folder"),
        ({"root": tmp_path}, "sequenceFiles"),
        ({"split": "train"}, "sequenceFiles/train"),
        ({"split": "val"}, "--split val: 3dpw has train, validation, test"),
        ({"weights": tmp_path / "gone.pth"}, "gone.pth: there is no such file"),
        ({"backbone": "vit"}, "--backbone vit"),
        ({"body": tmp_path / "gone.npz"}, "gone.npz"),
    ):
        with pytest.raises(InputError, match=reason):
            run(**{"root": root, "out": out, **options})
    (root / "sequenceFiles" / "train").mkdir()
    with pytest.raises(InputError, match="no .pkl files"):
        run(root, out, split="train")
    with pytest.raises(InputError, match="--dataset kinetics"):
        main(ExtractSpec(dataset="kinetics", root=root, out=out))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="absolute"):
        run(Path("3dpw"), out)
    assert not out.exists()


def test_more_workers_than_the_cluster_has_are_refused_at_once(tmp_path: Path) -> None:
    root = dataset(tmp_path / "3dpw", sequences=1, frames=2)
    with pytest.raises(InputError, match="--workers 64: this machine has 2 CPUs"):
        run(root, tmp_path / "features", workers=64)


def test_occluders_travel_to_the_workers(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    root, out = undisturbed
    options: dict[str, Any] = {"occluders": write_voc(tmp_path / "VOC2012"), "occluders_per": "frame"}
    assert run(root, tmp_path / "two", **options) == 0
    assert run(root, tmp_path / "one", workers=1, **options) == 0
    assert same_rows(tmp_path / "one", tmp_path / "two") and not same_rows(tmp_path / "one", out)
    plain, covered = (read_table(folder / "3dpw" / "test") for folder in (out, tmp_path / "one"))
    assert covered.drop_columns("feature").equals(plain.drop_columns("feature"))
    described = read_manifest(tmp_path / "one" / "3dpw" / "test").crop["occluders"]
    assert (described["objects"], described["people"], described["per"], described["seed"]) == (3, False, "frame", 0)


def test_the_manifest_says_what_the_set_was_made_with(undisturbed: tuple[Path, Path]) -> None:
    values = json.loads((undisturbed[1] / "3dpw" / "test" / MANIFEST).read_text())
    assert values["backbone"]["hash"] == load_backbone().hash and values["body"]["open"] is True
    assert values["crop"]["preprocessing"] == "corrected" and values["crop"]["occluders"] is None
    assert values["crop"]["scale"] == 1.2 and values["code_version"] and values["skipped"] == []
