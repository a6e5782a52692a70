"""Publishing: rows of units become parts, whatever interrupts it; only what changed is packed again."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.schema import MANIFEST, Manifest, read_manifest, read_table
from pipelines.jobs.bookkeeper import DAMAGED, FAILED
from pipelines.sets import packing
from pipelines.sets.fragments import fragment_path, write_fragment
from pipelines.sets.manifest_entries import PlanUnit
from pipelines.sets.outcomes import Outcome, OutcomeLog, read_outcomes
from pipelines.sets.publishing import lost_units, publish
from pipelines.sets.settings import RECORDS, list_set
from tests.fixtures.interruptions import Interrupted, interrupted_at
from tests.fixtures.unit_rows import FEATURES, SETTINGS, People, extract, pack_all, rows_of, unit

ROW_BYTES = 4 * FEATURES
FIRST: dict[PlanUnit, People] = {
    unit("walk.mp4", 0): {"a": (0, 5), "b": (2, 6)},
    unit("walk.mp4", 10): {"b": (0, 3), "c": (1, 2), "a": (0, 4)},
    unit("walk.mp4", 20): {"a": (3, 2)},
    unit("run.mp4"): {"a": (0, 7)},
    unit("empty.mp4"): {},
    unit("jump.mp4"): {"a": (0, 4), "b": (0, 4)},
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PART_BYTES", 12 * ROW_BYTES)
    monkeypatch.setattr(packing, "MOST_BYTES", 24 * ROW_BYTES)


def finish(folder: Path, units: Any, **options: Any) -> Manifest:
    return publish(
        folder, SETTINGS, list(units), read_outcomes(folder), run=lambda tasks: pack_all(folder, tasks),
        if_empty="nothing could be extracted", **options,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_set(folder)}


def expected_rows(work: dict[PlanUnit, People]) -> dict[str, list[tuple[int, Any]]]:
    """{track: [(frame, feature)]} in the order of time."""
    tracks: dict[str, list[tuple[int, Any]]] = {}
    for key, people in work.items():
        for clip, features in rows_of(key, people):
            tracks.setdefault(clip.track_id, []).extend(zip(clip.frame_index.tolist(), features.tolist(), strict=True))
    return tracks


def found_rows(table: pa.Table) -> dict[str, list[tuple[int, Any]]]:
    tracks: dict[str, list[tuple[int, Any]]] = {}
    for row in table.select(["track_id", "frame_index", "feature"]).to_pylist():
        tracks.setdefault(row["track_id"], []).append((row["frame_index"], row["feature"]))
    return tracks


def assert_right(folder: Path, work: dict[PlanUnit, People]) -> None:
    """The set holds the rows of ``work``; in each part, the rows of a track are together and in order."""
    assert found_rows(read_table(folder)) == expected_rows(work)
    manifest = read_manifest(folder)
    assert manifest.tracks == len(expected_rows(work))
    for part in manifest.parts:
        tracks = pq.read_table(folder / part["name"], columns=["track_id"])["track_id"].to_pylist()
        changes = [track for number, track in enumerate(tracks) if number == 0 or tracks[number - 1] != track]
        assert len(changes) == len(set(changes)) == part["tracks"] and len(tracks) == part["rows"]
    assert not [name for name in list_set(folder) if name.startswith(f"{RECORDS}/units/") or name.endswith(".jsonl")]


def test_ranges_of_a_source_become_whole_tracks(tmp_path: Path) -> None:
    extract(tmp_path, dict(reversed(FIRST.items())))  # the order of the work does not matter
    manifest = finish(tmp_path, FIRST)
    assert_right(tmp_path, FIRST)
    assert [part["rows"] for part in manifest.parts] == [22, 15]
    table = pq.read_table(tmp_path / manifest.parts[0]["name"])
    assert table["track_id"].to_pylist() == ["walk.mp4/a"] * 11 + ["walk.mp4/b"] * 9 + ["walk.mp4/c"] * 2
    file = pq.ParquetFile(tmp_path / manifest.parts[0]["name"])
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [5, 4, 2, 6, 3, 2]
    assert manifest.sources[0] == {"path": "walk.mp4", "bytes": 7, "rows": 22}
    assert len(manifest.sources) == 4 and manifest.code_version == "1.0" and not manifest.skipped


def test_a_large_source_is_split_and_its_tracks_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 20 * ROW_BYTES)
    extract(tmp_path, FIRST)
    manifest = finish(tmp_path, FIRST)
    assert_right(tmp_path, FIRST)
    assert [part["rows"] for part in manifest.parts] == [11, 11, 15]
    assert sum(part["tracks"] for part in manifest.parts) == manifest.tracks + 2
    again = finish(tmp_path, FIRST)  # without any footer
    assert again == manifest


def test_an_unchanged_set_is_left_alone(tmp_path: Path) -> None:
    extract(tmp_path, FIRST)
    finish(tmp_path, FIRST)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    finish(tmp_path, FIRST)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


SECOND: dict[PlanUnit, People] = {
    **{key: FIRST[key] for key in list(FIRST)[:3]},
    unit("jump.mp4"): FIRST[unit("jump.mp4")],
    unit("swim.mp4", generation=1): {"a": (1, 5)},
    unit("fall.mp4", generation=1): {"a": (0, 9)},
}


def change(folder: Path) -> None:
    """run.mp4 went, swim.mp4 and fall.mp4 came."""
    extract(folder, {key: people for key, people in SECOND.items() if key.id.startswith("0001/")}, run="second")


def test_only_parts_of_changed_sources_are_written_again(tmp_path: Path) -> None:
    extract(tmp_path, FIRST)
    first = finish(tmp_path, FIRST)
    change(tmp_path)
    second = finish(tmp_path, SECOND)
    assert_right(tmp_path, SECOND)
    assert [part["name"] for part in second.parts] == [first.parts[0]["name"], "part-0001-00000.parquet",
                                                       "part-0001-00001.parquet"]  # fmt: skip
    assert sorted(path.name for path in tmp_path.glob("part-*")) == sorted(part["name"] for part in second.parts)
    assert set(read_outcomes(tmp_path)) == {unit.id for unit in SECOND}


def test_a_unit_that_comes_late_goes_to_its_place_in_the_track(tmp_path: Path) -> None:
    late = unit("walk.mp4", 10)
    extract(tmp_path, {key: people for key, people in FIRST.items() if key != late})
    log = OutcomeLog(tmp_path, "run")
    log.append([Outcome(late.id, FAILED, skipped=[{"what": late.annotation, "reason": "busy", "frames": 10}])])
    manifest = finish(tmp_path, FIRST)
    assert manifest.skipped == [{"what": "walk.mp4", "reason": "busy", "frames": 10}]
    extract(tmp_path, {late: FIRST[late]}, run="second")
    assert not finish(tmp_path, FIRST).skipped
    assert_right(tmp_path, FIRST)


@pytest.mark.parametrize("killed", [False, True], ids=["error", "kill"])
def test_an_interrupted_publishing_loses_nothing(tmp_path: Path, killed: bool) -> None:
    wanted = tmp_path / "wanted"
    extract(wanted, FIRST)
    finish(wanted, FIRST)
    change(wanted)
    finish(wanted, SECOND)
    number = 0
    while True:
        number += 1
        assert number < 60
        folder = tmp_path / f"{number}"
        extract(folder, FIRST)
        finish(folder, FIRST)
        change(folder)
        if finish_until(folder, number, killed):
            break
        found = found_rows(read_table(folder))  # readers see the old set or the new one
        assert found in (expected_rows(FIRST), expected_rows(SECOND)), number
        lost = lost_units(folder, read_outcomes(folder))
        assert not lost & {key.id for key in SECOND}, number
        finish(folder, SECOND)
        assert_right(folder, SECOND)
        leftovers = {name for name in list_set(folder) if "/." in f"/{name.removeprefix(RECORDS)}"}
        found_files = {name: text for name, text in contents(folder).items() if name not in leftovers}
        assert found_files == contents(wanted), number
    assert number > 8  # parts, packed.parquet, outcomes.parquet, the log, the manifest, fragments, an old part


def finish_until(folder: Path, number: int, killed: bool, units: Any = SECOND) -> bool:
    """Publishes until the change ``number`` of a file; returns whether it ended before."""
    if not killed:
        with suppress(Interrupted), interrupted_at(number):
            finish(folder, units)
            return True
        return False
    child = os.fork()
    if not child:
        signal.alarm(60)
        with interrupted_at(number, lambda: os._exit(9)):
            finish(folder, units)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_interrupted_publishing_takes_the_parts_that_it_had_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(tmp_path, FIRST)
    finish_until(tmp_path, 2, False, FIRST)
    (part,) = tmp_path.glob("part-*")
    written = part.stat().st_mtime_ns
    finish(tmp_path, FIRST)
    assert part.stat().st_mtime_ns == written
    assert_right(tmp_path, FIRST)


def test_lost_rows_are_found_and_extracted_again(tmp_path: Path) -> None:
    extract(tmp_path, FIRST)
    manifest = finish(tmp_path, FIRST)
    wanted = read_table(tmp_path)
    (tmp_path / manifest.parts[0]["name"]).write_bytes(b"half")
    outcomes = read_outcomes(tmp_path)
    lost = lost_units(tmp_path, outcomes)
    assert lost == {key.id for key in FIRST if key.source == "walk.mp4"}
    skipped = finish(tmp_path, FIRST).skipped
    assert [entry["reason"] for entry in skipped] == ["its rows were lost; run the same command again"]
    extract(tmp_path, {key: people for key, people in FIRST.items() if key.id in lost}, run="second")
    finish(tmp_path, FIRST)
    assert_right(tmp_path, FIRST)
    assert found_rows(read_table(tmp_path)) == found_rows(wanted)


def test_a_fragment_that_was_cut_short_is_lost(tmp_path: Path) -> None:
    extract(tmp_path, FIRST)
    fragment_path(tmp_path, "0000/run.mp4").write_bytes(b"half")
    assert lost_units(tmp_path, read_outcomes(tmp_path)) == {"0000/run.mp4"}


def test_a_unit_that_is_done_again_with_more_rows_replaces_its_rows(tmp_path: Path) -> None:
    """As --retry-skipped does, after pictures that could not be read were repaired."""
    again = unit("walk.mp4", 10)
    extract(tmp_path, {**FIRST, again: {"b": (0, 3)}})
    finish(tmp_path, FIRST)
    extract(tmp_path, {again: FIRST[again]}, run="second")
    assert not lost_units(tmp_path, read_outcomes(tmp_path))
    manifest = finish(tmp_path, FIRST)
    assert_right(tmp_path, FIRST)
    assert [part["name"] for part in manifest.parts] == ["part-0001-00000.parquet", "part-0000-00001.parquet"]


def test_a_unit_that_is_done_again_keeps_its_rows_if_the_new_ones_are_lost(tmp_path: Path) -> None:
    again = unit("walk.mp4", 10)
    before = {**FIRST, again: {"b": (0, 3)}}
    extract(tmp_path, before)
    finish(tmp_path, FIRST)
    extract(tmp_path, {again: FIRST[again]}, run="second")
    fragment_path(tmp_path, again.id).unlink()
    assert lost_units(tmp_path, read_outcomes(tmp_path)) == {again.id}
    finish(tmp_path, FIRST)
    assert_right(tmp_path, before)
    assert lost_units(tmp_path, read_outcomes(tmp_path)) == {again.id}
    extract(tmp_path, {again: FIRST[again]}, run="third")
    finish(tmp_path, FIRST)
    assert_right(tmp_path, FIRST)


def test_a_fragment_that_a_listing_lacks_is_looked_up(tmp_path: Path) -> None:
    extract(tmp_path, FIRST)
    late = fragment_path(tmp_path, "0000/run.mp4").relative_to(tmp_path).as_posix()
    manifest = finish(tmp_path, FIRST, files={name: size for name, size in list_set(tmp_path).items() if name != late})
    assert not manifest.skipped and manifest.rows == 37


def test_what_ranges_of_a_source_say_alike_is_said_once(tmp_path: Path) -> None:
    ranges = [unit("walk.mp4", start) for start in (0, 10, 20)]
    extract(tmp_path, {ranges[0]: {"a": (0, 5)}, unit("run.mp4"): {"a": (0, 5)}})
    reason = "breaks off"
    log = OutcomeLog(tmp_path, "run")
    first = Outcome(ranges[0].id, "done", read_outcomes(tmp_path)[ranges[0].id].fragment,
                    skipped=[{"what": "walk.mp4#000007", "reason": reason, "frames": 3}])  # fmt: skip
    log.append([first])
    for later in ranges[1:]:
        start = int(later.id[-7:])
        entry = {"what": f"walk.mp4#{start:06d}", "reason": reason, "frames": 10}
        log.append([Outcome(later.id, DAMAGED, skipped=[entry])])
    manifest = finish(tmp_path, [*ranges, unit("run.mp4")])
    assert manifest.skipped == [{"what": "walk.mp4#000007", "reason": reason, "frames": 23}]


def test_nothing_extracted_is_an_error_without_a_manifest(tmp_path: Path) -> None:
    log = OutcomeLog(tmp_path, "run")
    log.append([Outcome("0000/a", DAMAGED, skipped=[{"what": "a", "reason": "not a video", "frames": 6}])])
    with pytest.raises(InputError, match="nothing could be extracted; the first reason: a: not a video"):
        finish(tmp_path, [unit("a")])
    with pytest.raises(InputError, match="nothing could be extracted; .*not extracted yet"):
        finish(tmp_path, [unit("b")])
    extract(tmp_path, {unit("c"): {}}, run="second")
    with pytest.raises(InputError, match="nothing could be extracted: nobody is visible"):
        finish(tmp_path, [unit("c")])
    assert not (tmp_path / MANIFEST).exists()


def test_versions_that_made_a_set_are_named(tmp_path: Path) -> None:
    extract(tmp_path, {unit("a"): {"a": (0, 3)}}, code="1.0 (abc)")
    extract(tmp_path, {unit("b"): {"a": (0, 3)}}, run="second", code="1.1")
    assert finish(tmp_path, [unit("a"), unit("b")]).code_version == "1.0 (abc), 1.1"


def test_float16_rows_are_packed_as_they_are(tmp_path: Path) -> None:
    one = unit("a")
    pieces = rows_of(one, {"a": (0, 5)})
    fragment = write_fragment(fragment_path(tmp_path, one.id), pieces, dataset="video", split="all", dtype="float16")
    OutcomeLog(tmp_path, "run").append([Outcome(one.id, "done", fragment, frames=5)])
    settings = {**SETTINGS, "backbone": {**SETTINGS["backbone"], "dtype": "float16"}}
    publish(tmp_path, settings, [one], read_outcomes(tmp_path), run=lambda t: pack_all(tmp_path, t), if_empty="")
    found = np.array(read_table(tmp_path)["feature"].to_pylist())
    assert np.array_equal(found, pieces[0][1].astype(np.float16))


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_in_the_rows_of_the_plan(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources come, change and go, units fail and are done later, parts get lost; every published set is right."""
    monkeypatch.setattr(packing, "PART_BYTES", 15 * ROW_BYTES)
    monkeypatch.setattr(packing, "MOST_BYTES", 30 * ROW_BYTES)
    chance = np.random.default_rng(seed)
    live: dict[str, dict[PlanUnit, People]] = {}  # by the name of the source
    done: set[PlanUnit] = set()
    for generation in range(8):
        for name in [name for name in live if chance.random() < 0.15]:
            del live[name]
        for number in range(int(chance.integers(1, 5))):
            name = f"{chance.integers(12):02d}.mp4" if chance.random() < 0.5 else f"{generation}-{number}.mp4"
            live.pop(name, None)
            live[name] = {
                unit(name, 10 * place, generation=generation): random_people(chance)
                for place in range(int(chance.integers(1, 7)))
            }
        planned = {key: people for units in live.values() for key, people in units.items()}
        outcomes = read_outcomes(tmp_path)
        lost = lost_units(tmp_path, outcomes)
        work = {key: people for key, people in planned.items() if key not in done or key.id in lost}
        work = {key: people for key, people in work.items() if chance.random() < 0.8 or generation == 7}
        extract(tmp_path, work, run=f"run{generation}")
        done |= work.keys()
        with_rows = {
            key: people for key, people in planned.items() if key in done and (key.id not in lost or key in work)
        }
        if expected_rows(with_rows):
            manifest = finish(tmp_path, planned)
            assert_right(tmp_path, with_rows)
            assert all(part["rows"] >= 1 for part in manifest.parts)
        if chance.random() < 0.3 and generation < 7:
            for part in list(tmp_path.glob("part-*"))[:1]:
                part.unlink()
    assert not lost_units(tmp_path, read_outcomes(tmp_path)) & {key.id for units in live.values() for key in units}


def random_people(chance: np.random.Generator) -> People:
    there = [person for person in "abc" if chance.random() < 0.6]
    return {person: (int(chance.integers(3)), int(chance.integers(1, 8))) for person in there}
