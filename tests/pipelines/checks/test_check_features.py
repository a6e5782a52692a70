"""check_features accepts the sets that extraction makes, and names every way in which a set can be broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST
from glot.human.body import load_body
from glot.human.joints import SPIN49
from pipelines.check_features import main
from pipelines.checks.crop_sheet import draw
from pipelines.checks.spec import CheckSpec
from pipelines.decoders.threedpw import decode, find_units
from pipelines.jobs.bookkeeper import DONE
from pipelines.sets import packing
from pipelines.sets.fragments import fragment_path, write_fragment
from pipelines.sets.manifest_entries import PlanUnit
from pipelines.sets.outcomes import Outcome
from pipelines.sets.publishing import publish
from pipelines.sets.settings import open_set
from tests.fixtures.threedpw import write_sequence
from tests.fixtures.unit_rows import pack_all

PART = "part-0000-00000.parquet"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two sequences."""
    root = tmp_path_factory.mktemp("3dpw")
    for name in ("a", "b"):
        write_sequence(root, name, frames=6)
    return root


@pytest.fixture(scope="module")
def good(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract(root, tmp_path_factory.mktemp("features") / "3dpw" / "test")


def extract(root: Path, folder: Path) -> Path:
    """A set as extraction leaves it, with 8 numbers for a feature."""
    settings: dict[str, Any] = {
        "dataset": "3dpw",
        "split": "test",
        "backbone": {"name": "resnet50", "weights": "w", "hash": "1", "feature_size": 8},
        "body": {"name": "b", "hash": "2", "open": True},
        "crop": {"scale": 1.2, "preprocessing": "corrected", "reference": "", "occluders": None},
    }
    units, body, outcomes = find_units(root, "test"), load_body(), {}
    with open_set(folder, settings), pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "PART_BYTES", 1)  # each sequence has a part
        for unit in units:
            found = decode(root, unit, body, "corrected")
            features = [np.random.default_rng(0).normal(size=(len(clip), 8)).astype(np.float32) for clip in found.clips]
            pieces = zip(found.clips, features, strict=True)
            fragment = write_fragment(fragment_path(folder, unit.name), pieces, dataset="3dpw", split="test")
            outcomes[unit.name] = Outcome(unit.name, DONE, fragment, found.counts)
        planned = [PlanUnit(unit.name, unit.name, unit.annotation, unit.sources, unit.frames) for unit in units]
        publish(folder, settings, planned, outcomes, run=lambda tasks: pack_all(folder, tasks), if_empty="nothing")
    return folder


def check(folder: Path, **options: Any) -> int:
    return main(CheckSpec(folder=folder, **options))


def test_a_good_set_is_fine(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(good) == 0 and check(good.parent.parent) == 0
    printed = capsys.readouterr().out
    assert "20 rows, 4 tracks, 2 parts" in printed and "broken" not in printed


def change(column: str, edit: Callable[[list], Any]) -> Callable[[Path], None]:
    """Edits a column of the first part, a list of Python values. The manifest is changed to fit the new file."""

    def apply(folder: Path) -> None:
        path = folder / PART
        table = pq.read_table(path)
        values = table[column].to_pylist()
        values = edit(values) or values
        at = table.schema.get_field_index(column)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
        rewrite(folder, table)

    return apply


def rewrite(folder: Path, table: pa.Table) -> None:
    pq.write_table(table, folder / PART, row_group_size=5)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["parts"][0]["bytes"] = (folder / PART).stat().st_size
    (folder / MANIFEST).write_text(json.dumps(manifest))


def change_all(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [edit(folder) for edit in changes] and None


def put(row: int, value: Any) -> Callable[[list], None]:
    return lambda values: values.__setitem__(row, value)


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "nan feature": (
        change("feature", put(3, [float("nan")] * 8)),
        "rows with NaN or infinite feature, first track a_0 frame 4",
    ),
    "zero feature": (change("feature", put(3, [0.0] * 8)), "features that are all zero"),
    "nan pose": (change("pose", put(0, [[float("inf")] * 3] * 24)), "NaN or infinite pose"),
    "box": (change("bbox", put(0, [5.0, 5.0, -1.0, -1.0])), "a bad box"),
    "box not square": (change("bbox", put(0, [5.0, 5.0, 2.0, 1.0])), "a bad box"),
    "scale": (change("crop_scale", put(0, 0.0)), "crop scale"),
    "confidence": (change("keypoints2d", put(0, [[0.0, 0.0, 7.0]] * 49)), "confidences outside"),
    "confidence between": (
        change("keypoints2d", put(0, [[5.0, 5.0, 0.5]] * 49)), "confidences between 0 and 1, which 3dpw does not have",
    ),
    "missing joint seen": (change("keypoints2d", put(2, [[0.0, 0.0, 1.0]] * 49)), "seen at exactly 0, 0"),
    "minus the pelvis": (change("joints3d_valid", put(1, [True] * 48 + [False])), "marked missing but are not 0"),
    "no joint": (
        change_all(
            change("joints3d_valid", put(1, [False] * 49)), change("joints3d", put(1, [[0.0] * 3] * 49))
        ),
        "1 rows with has_3d but no 3D joint, first track a_0 frame 1",
    ),
    "millimetres": (
        change("joints3d", lambda values: [[[1000 * x for x in joint] for joint in row] for row in values]),
        "m apart: millimetres?",
    ),
    "no pose": (change("pose", put(0, [[0.0] * 3] * 24)), "has_smpl but a pose of zeros"),
    "gender": (change("gender", put(0, "m")), "column gender has 'm'"),
    "frame rate": (change("fps", put(0, 0.0)), "frame rate that is not positive"),
    "negative frame": (change("frame_index", put(0, -1)), "a frame index below 0"),
    "missing value": (change("fps", put(0, None)), "column fps has empty values"),
    "split": (change("split", put(0, "train")), "column split has 'train' near track a_0"),
    "order": (change("frame_index", lambda values: [values[1], values[0], *values[2:]]), "from frame 1 to 0"),
    "twice": (change("frame_index", put(1, 0)), "from frame 0 to 0"),
    "contiguous": (change("track_id", put(2, "a_1")), "are not together"),
    "one row less": (
        lambda folder: rewrite(folder, pq.read_table(folder / PART)[:-1]),
        "19 rows, but the manifest has 20",
    ),
    "column gone": (
        lambda folder: rewrite(folder, pq.read_table(folder / PART).drop_columns("fps")),
        "columns are not those",
    ),
    "part gone": (lambda folder: (folder / PART).unlink(), "missing or not of the size"),
    "part cut": (
        lambda folder: (folder / PART).write_bytes((folder / PART).read_bytes()[:-9]),
        "missing or not of the size",
    ),
    "stray part": (
        lambda folder: shutil.copy(folder / PART, folder / "part-z.parquet") and None,
        "part-z.parquet not in the manifest",
    ),
    "manifest": (lambda folder: (folder / MANIFEST).write_text("{}") and None, "not a manifest"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_every_way_to_break_a_set_is_seen(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, sentence = BREAKS[name]
    shutil.copytree(good, tmp_path / "set")
    damage(tmp_path / "set")
    assert check(tmp_path / "set") == 1
    assert sentence in capsys.readouterr().out


def test_an_unreadable_part_of_the_right_size_is_seen(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(good, tmp_path / "set")
    part = tmp_path / "set" / PART
    part.write_bytes(b"\0" * part.stat().st_size)
    assert check(tmp_path / "set") == 1
    assert "not readable as Parquet" in capsys.readouterr().out


def test_no_set_at_all_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no manifest.json"):
        check(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        check(tmp_path / "gone")


def page_of(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    check(folder)
    return capsys.readouterr().out


def test_the_page_shows_what_is_in_a_set(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = page_of(capsys, good)
    assert len(page.splitlines()) < 50
    for words in (
        "resnet50 w 1; body b 2",
        "scale 1.2",
        "preprocessing corrected",
        "4 to 6 rows, median 5; 2 gaps in time; 30 fps",  # person 0 is not there in frame 3, hardly in 5
        "0 training windows of 16 rows",
        "4 tracks (20 rows) are shorter than a window and give none",
        "12.0 of 49 joints seen per row, 37 joints never seen",
        "3D joints in 100.0% of rows, SMPL in 100.0%, 49.0 valid 3D joints per row",
        "90.0% of rows valid; female 60%, male 40%",
        "person_frames: 24",
        "rows_too_few_joints: 4",
        "none of 3DPW's sequences is in the set",
    ):
        assert words in page, words


def test_the_page_shows_occluders_skipped_frames_and_reference_preprocessing(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(good, tmp_path / "set")
    manifest = json.loads((good / MANIFEST).read_text())
    manifest["crop"] |= {
        "preprocessing": "reference",
        "reference": "boxes are late",
        "occluders": {"objects": 30, "hash": "0", "people": True, "per": "frame", "seed": 7},
    }
    manifest["skipped"] = [{"what": f"{i}.jpg", "reason": "truncated JPEG", "frames": 1} for i in range(30)]
    manifest["skipped"].append({"what": "c.pkl", "reason": "sequenceFiles/c.pkl: no poses in it", "frames": 100})
    (tmp_path / "set" / MANIFEST).write_text(json.dumps(manifest))
    page = page_of(capsys, tmp_path / "set")
    for words in (
        "preprocessing reference",
        "as published: boxes are late",
        "covered by 30 objects with people, per frame, seed 7",
        "31 entries, 130 frames",
        "30 x truncated JPEG",
        "1 x no poses in it",
    ):
        assert words in page, words


def test_a_reference_set_may_have_its_missing_joints_elsewhere(good: Path, tmp_path: Path) -> None:
    for preprocessing, code in (("reference", 0), ("corrected", 1)):
        folder = tmp_path / preprocessing
        shutil.copytree(good, folder)
        BREAKS["minus the pelvis"][0](folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["crop"]["preprocessing"] = preprocessing
        (folder / MANIFEST).write_text(json.dumps(manifest))
        assert check(folder) == code


def test_missing_sequences_and_people_of_3dpw_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence(tmp_path / "3dpw", "downtown_bar_00", frames=20)
    write_sequence(tmp_path / "3dpw", "downtown_bus_00", frames=20, people=1)
    page = page_of(capsys, extract(tmp_path / "3dpw", tmp_path / "set"))
    assert "sequences                      2   published 24: 22 fewer" in page
    assert "tracks                         3   published 37: 34 fewer" in page
    assert "published 34,561" in page and "35,515" in page
    assert "explained by 22 sequences that are not in the set: downtown_arguing_00, downtown_cafe_00" in page
    assert "explained by downtown_bus_00: 1 of its 2 people" in page
    # A first person has 20 frames: in two the camera is not valid, in two too few joints are visible. 16 + 20 + 16.
    assert "evaluated rows                52" in page


def drawn_colours(picture: np.ndarray) -> list[bool]:
    return [
        bool((np.abs(picture.astype(int) - colour).max(-1) < 40).any()) for colour in ((255, 160, 40), (60, 60, 255))
    ]


def test_a_sheet_shows_crops_and_joints(good: Path, root: Path, tmp_path: Path) -> None:
    assert check(good, sheet=tmp_path / "new" / "sheet.png", root=root) == 0
    sheet = cv2.imread(str(tmp_path / "new" / "sheet.png"))
    assert sheet.shape == (3 * (224 + 32), 8 * 224, 3)  # 20 rows in 8 columns
    assert drawn_colours(sheet[:224, :224]) == [True, True]
    assert (sheet[512:, 4 * 224 :] == 0).all()  # no 21st row


def test_joints_are_drawn_where_they_are_and_unseen_ones_are_not() -> None:
    crop = np.zeros((224, 224, 3), np.uint8)
    keypoints = np.zeros((49, 3))
    for name, place in (("rknee", (50, 60)), ("lknee", (110, 60)), ("rankle", (5e9, 5e9))):
        keypoints[SPIN49.index(name)] = (*place, 1)
    keypoints[SPIN49.index("lankle")] = (110, 100, 0)
    draw(crop, keypoints, np.array([[2.0, 0, -40], [0, 2.0, -40]]))
    right, left = crop[80, 60], crop[80, 180]
    assert right[2] > 200 > 100 > right[0] and left[0] > 200 > 100 > left[2]
    assert not crop[120:].any() and not crop[:, 80:160].any()


def test_unreadable_pictures_are_marked_on_the_sheet_and_a_wrong_root_is_a_mistake(
    good: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "root")
    (tmp_path / "root" / "imageFiles" / "a" / "image_00001.jpg").unlink()
    assert check(good, sheet=tmp_path / "sheet.png", root=tmp_path / "root") == 0
    assert "2 pictures could not be read" in capsys.readouterr().out
    for options, reason in (
        ({"root": tmp_path}, "no picture of the set can be read, such as imageFiles/a/image_00000.jpg"),
        ({"root": tmp_path / "gone"}, "gone: there is no such folder"),
        ({}, "give the folder of the pictures with --root"),
        ({"root": root, "sheet": tmp_path / "sheet.doc"}, "name it .png or .jpg"),
    ):
        with pytest.raises(InputError, match=reason):
            check(good, **{"sheet": tmp_path / "sheet.png", **options})
    shutil.copytree(good, tmp_path / "sets" / "one")
    shutil.copytree(good, tmp_path / "sets" / "two")
    with pytest.raises(InputError, match="name one of the 2 sets"):
        check(tmp_path / "sets", sheet=tmp_path / "sheet.png", root=root)


def test_the_sets_of_the_home_folder_are_checked_by_default(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    with pytest.raises(
        InputError,
        match=r"features: there is no such folder; make feature sets with\n    python pipelines/extract_features.py",
    ):
        CheckSpec()
    shutil.copytree(good, tmp_path / "features" / "3dpw" / "test")
    assert main(CheckSpec()) == 0 and "fine" in capsys.readouterr().out
