"""Ranges of a long source hold exactly what the whole source holds."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glot.errors import NotNowError
from glot.human.body import Body, load_body
from glot.people.frame_boxes import FrameBoxes
from pipelines.decoders import unit_cuts
from pipelines.decoders.clips import Decoded, Decoder, Unit, of_range
from pipelines.decoders.human36m import HUMAN36M
from pipelines.decoders.mpi_inf_3dhp import MPI_INF_3DHP
from pipelines.decoders.threedpw import THREEDPW
from pipelines.decoders.unit_cuts import cut_pictures, cut_video
from pipelines.decoders.video_dataset import video_decoder
from tests.fixtures import human36m, mpi_inf_3dhp, threedpw
from tests.fixtures.video import write_video


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(autouse=True)
def short_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_cuts, "UNIT_FRAMES", 8)
    monkeypatch.setattr(unit_cuts, "LONGEST_WHOLE", 12)


def assert_partition(units: Sequence[Unit], frames: int) -> None:
    """The ranges follow each other from the first picture to the end, each with a name of its own."""
    assert len(units) > 1 and units[0].start == 0 and units[-1].stop is None
    assert [unit.stop for unit in units[:-1]] == [unit.start for unit in units[1:]]
    assert sum(unit.frames for unit in units) == frames and min(unit.frames for unit in units) > 0
    assert len({unit.key for unit in units}) == len(units) and len({unit.name for unit in units}) == 1


def columns(parts: Sequence[Decoded]) -> dict[str, dict[str, Any]]:
    """{track: {column: values of all parts, one after the other}}."""
    found: dict[str, dict[str, Any]] = {}
    for clip in (clip for part in parts for clip in part.clips):
        values = {name: value for name, value in vars(clip).items() if isinstance(value, np.ndarray)}
        values["image"] = np.array(list(clip.image))
        track = found.setdefault(clip.track_id, {name: [] for name in values})
        for name, value in values.items():
            track[name].append(value)
    return {track: {name: np.concatenate(value) for name, value in values.items()} for track, values in found.items()}


def assert_same_content(parts: Sequence[Decoded], whole: Decoded) -> None:
    found, expected = columns(parts), columns([whole])
    assert found.keys() == expected.keys()
    for track, values in expected.items():
        for name, value in values.items():
            assert np.array_equal(found[track][name], value, equal_nan=value.dtype.kind == "f"), (track, name)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    assert {name: counts[name] for name in whole.counts} == whole.counts


def write_threedpw(root: Path) -> None:
    threedpw.write_sequence(root, "walk", frames=30)


def write_human36m(root: Path) -> None:
    human36m.write_subject(root, 9, [(2, 1, 4)])


def write_mpi_inf_3dhp(root: Path) -> None:
    mpi_inf_3dhp.write_test(root, frames=30)


@pytest.mark.parametrize(
    ("decoder", "write"),
    [(THREEDPW, write_threedpw), (HUMAN36M, write_human36m), (MPI_INF_3DHP, write_mpi_inf_3dhp)],
    ids=["3dpw", "human36m", "mpi_inf_3dhp"],
)
@pytest.mark.parametrize("preprocessing", ["corrected", "reference"])
def test_ranges_of_pictures_add_up_to_the_sequence(
    tmp_path: Path, body: Body, decoder: Decoder, write: Any, preprocessing: str
) -> None:
    write(tmp_path)
    assert decoder.cuttable
    whole = decoder.find(tmp_path, "test")[0]
    units = cut_pictures(whole)
    assert_partition(units, whole.frames)
    parts = [of_range(unit, decoder.decode(tmp_path, unit, body, preprocessing)) for unit in units]
    expected = decoder.decode(tmp_path, whole, body, preprocessing)
    assert expected.counts["rows"] > 10
    assert_same_content(parts, expected)
    for unit, part in zip(units, parts, strict=True):
        assert part.counts["rows"] == sum(len(clip) for clip in part.clips)
        assert all((clip.frame_index >= unit.start).all() for clip in part.clips)


def test_short_sequences_and_videos_of_datasets_are_not_cut(tmp_path: Path) -> None:
    write_threedpw(tmp_path)
    whole = THREEDPW.find(tmp_path, "test")[0]
    assert cut_pictures(replace(whole, frames=12)) == [replace(whole, frames=12)]
    mpi_inf_3dhp.write_sequence(tmp_path / "films", frames=30, cameras=(0,), film=True)
    film = MPI_INF_3DHP.find(tmp_path / "films", "train")[0]
    assert film.frames == 30 and cut_pictures(film) == [film]


@pytest.mark.parametrize("with_boxes", [False, True])
def test_ranges_of_a_video_add_up_to_the_video(tmp_path: Path, body: Body, with_boxes: bool) -> None:
    write_video(tmp_path / "walk.mkv", frames=40, codec="mjpeg", pixels="yuvj420p")  # key frames only
    tracks = tmp_path / "boxes.json" if with_boxes else None
    boxes = {
        "a": {"frames": list(range(5, 45)), "bbox": [[1, 2, 30 + n % 7, 40] for n in range(40)]},
        "b": {"frames": [0, 39], "bbox": [[1, 2, 0, 4], [1, 2, 3, 4]]},
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    decoder = video_decoder(tracks)
    (whole,) = decoder.find(tmp_path, "test")
    units = cut_video(tmp_path, whole)
    assert_partition(units, 40)
    expected = decoder.decode(tmp_path, whole, body, "corrected")
    if with_boxes:
        assert (expected.counts["boxes_beyond_the_video"], expected.counts["boxes_without_size"]) == (5, 1)
        found = {name: FrameBoxes(np.array(one["frames"]), np.array(one["bbox"], float)) for name, one in boxes.items()}
        units = [
            replace(unit, boxes={name: one.between(unit.start, unit.stop) for name, one in found.items()})
            for unit in units
        ]
    assert_same_content([decoder.decode(tmp_path, unit, body, "corrected") for unit in units], expected)


def test_a_planned_range_is_decoded_without_opening_the_video(tmp_path: Path, body: Body) -> None:
    path = write_video(tmp_path / "walk.mkv", frames=40, codec="mjpeg", pixels="yuvj420p")
    decoder = video_decoder(None)
    units = cut_video(tmp_path, decoder.find(tmp_path, "test")[0])
    path.unlink()
    (clip,) = decoder.decode(tmp_path, Unit.from_json(units[1].to_json()), body, "corrected").clips
    assert clip.frame_index.tolist() == list(range(units[1].start, units[1].start + units[1].frames))
    assert (clip.fps, units[1].facts["frames"]) == (25.0, 40)


def test_short_and_unreadable_videos_are_whole_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mp4", frames=12)
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    monkeypatch.setattr(unit_cuts, "scan", lambda *_: pytest.fail("read through"))
    monkeypatch.setattr(unit_cuts, "estimated_frames", lambda *_: 12)
    first, second = video_decoder(None).find(tmp_path, "test")
    assert cut_video(tmp_path, first) == [replace(first, frames=12)]
    monkeypatch.undo()
    assert cut_video(tmp_path, second) == [second] and second.frames == 0


def test_a_video_that_cannot_be_read_now_is_planned_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mkv", frames=40, codec="mjpeg", pixels="yuvj420p")
    (source,) = video_decoder(None).find(tmp_path, "test")

    def busy(path: Path, *_: Any) -> Any:
        raise NotNowError(f"{path}: the store is busy")

    monkeypatch.setattr(unit_cuts, "scan", busy)
    assert cut_video(tmp_path, source) == [replace(source, frames=40, facts={"unread": True})]
