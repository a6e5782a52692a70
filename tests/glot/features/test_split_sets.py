"""Everything that reads feature sets says the same about rows in one part and in parts over which tracks go on."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.capture.spec import PredictSpec
from glot.features.schema import MANIFEST, read_manifest
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.models.checkpoint import save_checkpoint
from glot.models.glot import GLoT
from glot.pictures.track_pictures import images_of
from glot.predict import main as predict
from glot.recipes import open_sample
from glot.scoring.evaluation import evaluate_split, genders_of
from pipelines.check_features import main as check
from pipelines.checks.crop_sheet import choose
from pipelines.checks.spec import CheckSpec
from tests.fixtures.features import write_feature_set, write_split_set
from tests.fixtures.small_model import SMALL, small_model


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture
def folders(tmp_path: Path, body: Body, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders of feature sets: the same rows of 3dpw/test in one part, and in three."""
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    whole, split = (tmp_path / name / "3dpw" / "test" for name in ("whole", "split"))
    write_feature_set(whole, tracks=[30, 40, 25], gap=2, invalid=0.1, feature_size=12, body=body, split="test", parts=1)
    write_split_set(split, whole)
    return whole, split


@pytest.fixture
def model() -> GLoT:
    return small_model(replace(SMALL, feature_size=12)).eval()


def test_evaluation_and_predictions(folders: tuple[Path, Path], model: GLoT, body: Body, tmp_path: Path) -> None:
    found, tables = [], []
    for folder in folders:
        found.append(evaluate_split(model, FeatureStore.open(folder), body, vertices=True))
        checkpoint = tmp_path / "best"
        save_checkpoint(
            checkpoint,
            model=model,
            recipe=replace(open_sample(), model=model.config),
            body={"name": "open_body", "hash": "x", "open": True},
            features={"backbone": read_manifest(folder).backbone},
            metrics={},
            step=1,
        )
        out = tmp_path / "bodies.parquet"
        predict(PredictSpec(checkpoint=checkpoint, features=folder.parent.parent, out=out))
        tables.append(pq.read_table(out).sort_by([("track_id", "ascending"), ("frame_index", "ascending")]))
    assert found[0] == found[1] and found[0].tracks == 3
    assert tables[0].equals(tables[1]) and len(tables[0]) == 95


def test_pictures_and_people(folders: tuple[Path, Path]) -> None:
    whole, split = (FeatureStore.open(folder) for folder in folders)
    for track in whole.tracks:
        images = images_of(whole, track)
        assert images_of(split, split.track(track.track_id)) == images and len(images) == track.stop - track.start
    assert genders_of(whole) == genders_of(split)
    assert {len(choose(folder, read_manifest(folder))) for folder in folders} == {32}


def test_the_page_of_a_check(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for folder in folders:
        assert check(CheckSpec(folder=folder)) == 0
        head, *page = capsys.readouterr().out.splitlines()
        pages.append((head.partition(":")[2].rpartition(",")[0], page))
    assert pages[0] == pages[1]
    assert pages[0][0] == " 95 rows, 3 tracks" and pages[0][1][-1] == "  fine"


def test_a_check_finds_frames_that_come_again_in_a_later_part(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = folders
    last = sorted(folder.glob("part-*"))[-1]
    table = pq.read_table(last)
    frames = pa.array([0, *table["frame_index"].to_pylist()[1:]], pa.int32())
    pq.write_table(table.set_column(3, table.schema.field(3), frames), last)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["parts"][-1]["bytes"] = last.stat().st_size
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert check(CheckSpec(folder=folder)) == 1
    assert f"{last.name}: track clip00_0 is not in time order, it goes from frame" in capsys.readouterr().out
