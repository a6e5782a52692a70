"""What --preprocessing and --occluders do to a unit; sets made differently never share a folder. Without Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import RANDOM_WEIGHTS
from glot.human.body import Body, load_body
from glot.human.crop import CROP_SIZE, keypoints_to_crop
from pipelines.decoders.clips import Unit
from pipelines.decoders.frames import read_crops
from pipelines.decoders.threedpw import decode, find_units
from pipelines.extract_features import main
from pipelines.extraction import job
from pipelines.extraction.datasets import DatasetSpec
from pipelines.extraction.ingredients import load_ingredients
from pipelines.extraction.occlusion import Occlusion, load_occlusion
from pipelines.extraction.spec import ExtractSpec
from pipelines.extraction.units import SplitJob, Tools, extract_unit
from pipelines.sets.fragments import fragment_path
from pipelines.sets.settings import open_set
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.voc import write_voc

SIZE = 12 * 12 * 3  # numbers in a feature: every 19th pixel of the crop


def pixels(crops: np.ndarray) -> np.ndarray:
    """Replaces the backbone: features (B, SIZE) are pixels of the crops."""
    return crops[:, ::19, ::19].reshape(len(crops), SIZE).astype(np.float32)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("VOCdevkit") / "VOC2012")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("3dpw")
    for split in ("train", "validation", "test"):
        write_sequence(root, f"{split}_00", split=split, frames=20)
        write_sequence(root, f"{split}_01", split=split, frames=20, seed=1)
    return root


def rows_of(
    root: Path, folder: Path, body: Body, *, split: str = "train", unit: int = 0, batch_size: int = 8, **options: Any
) -> dict[str, np.ndarray]:
    """Extracts a unit; the columns of its fragment."""
    preprocessing = options.pop("preprocessing", "corrected")
    spec = DatasetSpec(dataset="3dpw", root=root, out=folder, batch_size=batch_size, preprocessing=preprocessing)
    job = SplitJob(spec, split, {"backbone": {"feature_size": SIZE}, "crop": {"size": CROP_SIZE}})
    job.folder.mkdir(parents=True, exist_ok=True)
    one: Unit = find_units(root, split)[unit]
    outcome = extract_unit(job, "0000/one", one, Tools(pixels, body, **options))
    assert outcome.fragment is not None and not outcome.skipped
    table = pq.read_table(fragment_path(job.folder, "0000/one"))
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def settings_of(root: Path, **options: Any) -> dict[str, Any]:
    """What the training split is made with."""
    spec = DatasetSpec(dataset="3dpw", root=root, split="train", **options)
    occlusion = load_occlusion(spec)
    return load_ingredients(spec, ["train"], occlusion.describe() if occlusion else None).settings["train"]


def test_the_settings_name_random_weights_with_seed_and_hash(root: Path) -> None:
    backbone, plain = (settings_of(root, weights=RANDOM_WEIGHTS)["backbone"], settings_of(root)["backbone"])
    assert (backbone["weights"], backbone["seed"]) == ("random", 0) and len(backbone["hash"]) == 16
    assert backbone["hash"] != plain["hash"] and "seed" not in plain


def occlusion(voc: Path, per: str, seed: int = 0) -> Occlusion:
    made = load_occlusion(ExtractSpec(dataset="3dpw", occluders=voc, occluders_per=per, seed=seed, split="train"))
    assert made is not None
    return made


@pytest.mark.parametrize("per", ["frame", "track"])
def test_occluders_change_features_and_no_label(root: Path, tmp_path: Path, body: Body, voc: Path, per: str) -> None:
    plain = rows_of(root, tmp_path / "plain", body)
    covered = rows_of(root, tmp_path / "covered", body, occlusion=occlusion(voc, per, seed=2))
    assert (plain["feature"] != covered["feature"]).any(1).mean() > 0.4
    for name in plain:
        assert name == "feature" or np.array_equal(plain[name], covered[name])


@pytest.mark.parametrize("per", ["frame", "track"])
def test_covered_features_do_not_depend_on_the_order_of_work(
    root: Path, tmp_path: Path, body: Body, voc: Path, per: str
) -> None:
    first = [rows_of(root, tmp_path / "a", body, unit=unit, occlusion=occlusion(voc, per)) for unit in (0, 1)]
    again = [
        rows_of(root, tmp_path / "b", body, unit=unit, occlusion=occlusion(voc, per), threads=3, batch_size=3)
        for unit in (1, 0)
    ]
    for one, other in zip(first, reversed(again), strict=True):
        assert np.array_equal(one["feature"], other["feature"])
    assert not np.array_equal(first[0]["feature"], first[1]["feature"])


def test_splits_and_seeds_differ_in_what_is_pasted(root: Path, tmp_path: Path, body: Body, voc: Path) -> None:
    clips = decode(root, find_units(root, "train")[0], body, "corrected").clips
    crops = [
        np.array([crop for frame in read_crops(root, clips, alter=alter) for crop in frame.crops])
        for alter in (
            occlusion(voc, "frame").alter("3dpw/train"),
            occlusion(voc, "frame").alter("3dpw/test"),
            occlusion(voc, "frame", seed=1).alter("3dpw/train"),
        )
    ]
    assert not np.array_equal(crops[0], crops[1]) and not np.array_equal(crops[0], crops[2])


def test_reference_rounds_what_loaders_round_and_leaves_the_test_split(root: Path, tmp_path: Path, body: Body) -> None:
    for split, rounded in (("train", True), ("test", False)):
        rows = rows_of(root, tmp_path / split, body, split=split, preprocessing="reference")
        for name in ("joints3d", "pose"):
            assert np.array_equal(rows[name], rows[name].astype(np.float16)) == rounded
        assert (rows["crop_scale"] == np.float32(1.2)).all()
        targets = keypoints_to_crop(rows["keypoints2d"], rows["bbox"], rows["crop_scale"])[:, 25:37, :2]
        assert (np.abs(targets - targets.astype(np.float16)).max() < 1e-6) == rounded
        assert np.linalg.norm(rows["joints3d"][:, 27:29].mean(1), axis=1).min() > 0.1  # the world's translation
    corrected = rows_of(root, tmp_path / "corrected", body)
    assert np.abs(corrected["joints3d"][:, 27:29].mean(1)).max() < 1e-6
    assert not np.array_equal(corrected["joints3d"], corrected["joints3d"].astype(np.float16))


def test_a_folder_is_refused_with_other_settings_than_it_was_started_with(
    root: Path, tmp_path: Path, voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "_run_units", lambda *_, **__: pytest.fail("it went on"))

    def begin(name: str, **options: Any) -> Path:
        with open_set(tmp_path / name / "3dpw" / "train", settings_of(root, **options)):
            pass  # as if it were killed then
        return tmp_path / name

    def go_on(out: Path, **options: Any) -> None:
        main(ExtractSpec(dataset="3dpw", root=root, out=out, split="train", **options))

    ours, theirs = begin("ours"), begin("theirs", preprocessing="reference")
    covered = begin("covered", occluders=voc, occluders_per="frame", seed=1)
    for out, options, reason in (
        (
            ours,
            {"preprocessing": "reference"},
            "started with crop preprocessing corrected.*this command has.*reference",
        ),
        (theirs, {}, "started with crop preprocessing reference.*this command has.*corrected"),
        (ours, {"occluders": voc}, "started with crop occluders None"),
        (covered, {}, "but this command has occluders None"),
        (covered, {"occluders": voc, "occluders_per": "frame"}, "'seed': 1.*'seed': 0"),
        (covered, {"occluders": voc, "seed": 1}, "'per': 'frame'.*'per': 'track'"),
    ):
        with pytest.raises(InputError, match=reason):
            go_on(out, **options)
    moved = voc.parent / "moved"
    voc.rename(moved)  # the same objects from another place are the same
    try:
        for out, options in (
            (ours, {}),
            (theirs, {"preprocessing": "reference"}),
            (covered, {"occluders": moved, "occluders_per": "frame", "seed": 1}),
        ):
            with pytest.raises(pytest.fail.Exception, match="it went on"):
                go_on(out, **options)
    finally:
        moved.rename(voc)


def test_mistakes_name_the_option(root: Path, tmp_path: Path, voc: Path) -> None:
    for options, reason in (
        ({"preprocessing": "vibe"}, "--preprocessing vibe: there is corrected and reference"),
        ({"occluders_per": "frame"}, "without --occluders"),
        ({"occluders": tmp_path}, "give VOCdevkit/VOC2012"),
        ({"occluders": voc, "occluders_per": "video"}, "--occluders-per video"),
        ({"occluders": voc, "split": "all"}, "name one --split"),
    ):
        with pytest.raises(InputError, match=reason):
            main(ExtractSpec(**{"dataset": "3dpw", "root": root, "out": tmp_path / "out", "split": "train", **options}))
    assert not (tmp_path / "out").exists()


def test_the_manifest_says_what_reference_was(root: Path) -> None:
    crop = settings_of(root, preprocessing="reference")["crop"]
    assert crop["preprocessing"] == "reference" and "1.3" in crop["reference"] and "float16" in crop["reference"]
    assert settings_of(root)["crop"]["reference"] == ""
