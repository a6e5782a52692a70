"""Parts of an import are written once, whatever interrupts it; imports that earlier code began are continued.

The stored set and its file were written by the code of commit b4bf017, with parts of 6 rows and features of 4 numbers.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST, Manifest, read_manifest, read_table
from pipelines.imports import importing, shares
from pipelines.imports.importing import import_file
from pipelines.imports.spec import ImportSpec
from pipelines.sets.outcomes import read_outcomes
from pipelines.sets.packed import PACKED
from pipelines.sets.settings import RECORDS
from tests.fixtures.interruptions import Interrupted, interrupted_at
from tests.fixtures.places import ROOT

STORED = ROOT / "tests" / "fixtures" / "earlier_imports"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "PART_ROWS", 6)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the parts that are written from here on."""
    names, real = [], importing.write_fragment

    def noted(path: Path, *arguments: object, **options: object) -> object:
        names.append(path.name)
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(importing, "write_fragment", noted)
    return names


def spec_of(out: Path) -> ImportSpec:
    return ImportSpec(dataset="penn_action", split="train", src=STORED / "penn_train_db.pt", out=out, body=None)


def run(out: Path) -> Manifest:
    return import_file(spec_of(out))


def earlier(out: Path) -> Path:
    """The folder of a copy of the stored set."""
    return Path(shutil.copytree(STORED / "penn_action" / "train", spec_of(out).folder))


def without_parts(manifest: Manifest) -> Manifest:
    """What the manifest says beside the names and sizes of parts, and the version of the code."""
    parts = [{"rows": part["rows"], "tracks": part["tracks"]} for part in manifest.parts]
    return replace(manifest, parts=parts, code_version="", schema_version=0)


def test_an_import_says_and_holds_what_it_did_before(tmp_path: Path) -> None:
    run(tmp_path)
    folder, before = spec_of(tmp_path).folder, STORED / "penn_action" / "train"
    assert without_parts(read_manifest(folder)) == without_parts(read_manifest(before))
    assert read_table(folder).equals(read_table(before))
    names = [part["name"] for part in read_manifest(folder).parts]
    assert names == ["part-000000000.parquet", "part-000000006.parquet", "part-000000012.parquet"]
    assert not list(folder.rglob("*.jsonl")) and not (folder / RECORDS / "units").exists()


def test_a_finished_import_of_earlier_code_stays_as_it_is(
    tmp_path: Path, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = earlier(tmp_path)
    before = read_manifest(folder)
    manifest = run(tmp_path)
    assert replace(manifest, schema_version=before.schema_version) == before and not written
    assert read_table(folder).equals(read_table(STORED / "penn_action" / "train"))
    assert "continues an import of earlier code, 3 parts\n" in capsys.readouterr().out
    assert not list((folder / RECORDS).glob("0*.json"))
    assert run(tmp_path) == manifest and "continues" not in capsys.readouterr().out


def half_written(folder: Path) -> None:
    (folder / "part-00001.parquet").write_bytes(b"half")


def unreadable(folder: Path) -> None:
    (folder / RECORDS / "00001.json").write_text("{half")


def never_begun(folder: Path) -> None:
    (folder / RECORDS / "00001.json").unlink()
    (folder / "part-00001.parquet").unlink()


@pytest.mark.parametrize("fault", [half_written, unreadable, never_begun])
def test_an_import_that_earlier_code_began_is_finished(
    tmp_path: Path, written: list[str], fault: Callable[[Path], None]
) -> None:
    folder = earlier(tmp_path)
    (folder / MANIFEST).unlink()
    fault(folder)
    manifest = run(tmp_path)
    assert written == ["part-000000006.parquet"]
    assert without_parts(manifest) == without_parts(read_manifest(STORED / "penn_action" / "train"))
    assert read_table(folder).equals(read_table(STORED / "penn_action" / "train"))
    assert not (folder / "part-00001.parquet").exists()


def test_another_file_is_refused_as_before(tmp_path: Path) -> None:
    folder = earlier(tmp_path)
    settings = folder / RECORDS / "settings.json"
    settings.write_text(settings.read_text().replace("a5c9979418a8864f", "0123456789abcdef"))
    with pytest.raises(InputError, match="started with source hash 0123456789abcdef, but this command has hash a5c9"):
        run(tmp_path)


@pytest.mark.parametrize("start", [lambda out: None, earlier], ids=["new", "of earlier code"])
def test_an_import_that_is_interrupted_anywhere_ends_the_same(
    tmp_path: Path, start: Callable[[Path], object], written: list[str]
) -> None:
    start(tmp_path / "whole")
    wanted = run(tmp_path / "whole")
    times_written, number = len(written), 0
    while True:
        number += 1
        out = tmp_path / str(number)
        start(out)
        written.clear()
        try:
            with interrupted_at(number):
                run(out)
            break
        except Interrupted:
            pass
        assert run(out) == wanted, number
        assert len(written) <= times_written + 1  # what was interrupted is written again, nothing else
        assert read_table(spec_of(out).folder).equals(read_table(STORED / "penn_action" / "train"))
        assert not list(spec_of(out).folder.rglob(".part-*"))
    assert number > 5


def test_a_part_that_is_lost_is_imported_again_and_no_other(tmp_path: Path, written: list[str]) -> None:
    manifest = run(tmp_path)
    folder = spec_of(tmp_path).folder
    (folder / "part-000000006.parquet").unlink()
    written.clear()
    assert run(tmp_path) == manifest and written == ["part-000000006.parquet"]


def test_a_run_with_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    folder = spec_of(tmp_path).folder
    files = [folder / MANIFEST, folder / RECORDS / PACKED, folder / RECORDS / "outcomes.parquet"]
    before = [file.stat().st_mtime_ns for file in files]
    run(tmp_path)
    assert [file.stat().st_mtime_ns for file in files] == before


def test_parts_of_another_size_than_those_of_before(
    tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier(tmp_path)
    monkeypatch.setattr(shares, "PART_ROWS", 12)
    manifest = run(tmp_path)
    assert written == ["part-000000000.parquet"]  # the last part has the same rows as before
    assert [part["name"] for part in manifest.parts] == ["part-000000000.parquet", "part-00002.parquet"]
    folder = spec_of(tmp_path).folder
    assert read_table(folder).equals(read_table(STORED / "penn_action" / "train"))
    assert json.loads((folder / MANIFEST).read_text())["tracks"] == 3
    assert len(read_outcomes(folder)) == 2 and len(list(folder.glob("part-*"))) == 2
