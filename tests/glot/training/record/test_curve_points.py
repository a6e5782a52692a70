"""Points are read as they were written, each once, in order, whatever a killed process left at the end of the file."""

from pathlib import Path

import pytest

from glot.training.record import curve_points
from glot.training.record.curve_points import PointReader, PointWriter
from tests.fixtures.full_disk import full_disk


def all_points(reader: PointReader) -> list[tuple[str, float, int]]:
    """(name, value, step) of all points to the end of the file."""
    found = []
    while points := reader.read():
        found += [(name, value, step) for name, value, _, step in points]
    return found


@pytest.mark.parametrize("chunk", [7, 50, 1 << 20])
def test_points_come_back_in_order_while_the_file_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(curve_points, "READ_BYTES", chunk)
    reader = PointReader(tmp_path / "run" / "points.jsonl")
    assert reader.read() == []
    writer = PointWriter(tmp_path / "run" / "points.jsonl")
    for part in range(3):
        for step in range(10 * part, 10 * part + 10):
            writer.write({"loss": step / 2, "error": -step}, step=step)
        expected = [p for s in range(10 * part, 10 * part + 10) for p in (("loss", s / 2, s), ("error", -s, s))]
        assert all_points(reader) == expected
    assert reader.read() == []


def test_steps_that_are_done_again_are_given_once(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    for first in (0, 3):
        writer = PointWriter(path)
        for step in range(first, 6):
            writer.write({"loss": step + first / 100} | ({"late": 1.0} if first else {}), step=step)
        writer.close()
    assert all_points(PointReader(path)) == [("loss", s, s) for s in range(6)] + [("late", 1.0, s) for s in (3, 4, 5)]


def test_the_part_of_a_line_that_a_killed_process_left_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    writer = PointWriter(path)
    for step in range(3):
        writer.write({"loss": float(step)}, step=step)
    writer.close()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        reader = PointReader(path)
        before = all_points(reader)
        after = PointWriter(path)
        after.write({"loss": 9.0}, step=9)
        after.close()
        complete = sum(len(b"".join(lines[: n + 1])) <= cut for n in range(3))
        kept = [("loss", float(step), step) for step in range(complete)]
        assert before == kept and all_points(reader)[-1] == ("loss", 9.0, 9)
        # A line that only lacks its end is whole.
        assert all_points(PointReader(path)) in (
            [*kept, ("loss", 9.0, 9)],
            [*kept, ("loss", float(complete), complete), ("loss", 9.0, 9)],
        )


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_takes_no_point_twice_and_leaves_nothing_to_write_later(tmp_path: Path) -> None:
    with full_disk(tmp_path) as (disk, fill):
        path = disk / "points.jsonl"
        writer = PointWriter(path)
        writer.write({"loss": 0.5}, step=1)
        with fill(), pytest.raises(OSError, match="No space left"):
            for step in range(2, 2000):  # the file's last block has some space
                writer.write({"loss": step / 2}, step=step)
        del writer
        writer = PointWriter(path)
        for step in range(1, 2000):
            writer.write({"loss": step / 2}, step=step)
        assert all_points(PointReader(path)) == [("loss", step / 2, step) for step in range(1, 2000)]
        writer.close()
