"""A set of real motions: what goes in comes out, steps decide their motions, hostile files do no harm."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glot.errors import InputError
from glot.features.copy_cache import copies
from glot.features.motion_sets import FILE, METADATA, MotionSet, read_facts
from glot.training.motion_stream import MotionStream
from pipelines.make_motion_set import main
from pipelines.motions.set_spec import MakeMotionSetSpec
from tests.fixtures.motion_sets import write_motion_set


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_motion_set(tmp_path / "features") / FILE


def amass(path: Path, frames: int, *, rate: float = 60.0, joints: int = 52) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    poses = np.random.default_rng(frames).normal(scale=0.01, size=(frames, 3 * joints)).cumsum(0)
    np.savez(path, poses=poses, trans=np.zeros((frames, 3)), betas=np.zeros(16), mocap_framerate=rate)
    return poses


def test_amass_goes_in_at_30_frames_a_second_with_its_hands_and_what_is_left_out_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poses = amass(tmp_path / "amass/KIT/3/walk_poses.npz", 200)
    amass(tmp_path / "amass/KIT/3/short_poses.npz", 100)
    (tmp_path / "amass/KIT/bad.npz").write_bytes(b"PK no zip")
    main(MakeMotionSetSpec(motions=tmp_path / "amass", out=tmp_path / "features/amass/motion"))
    assert "1 motions, 100 frames" in capsys.readouterr().out
    file = tmp_path / "features/amass/motion" / FILE
    assert {entry["what"] for entry in read_facts(file).skipped} == {"KIT-3-short_poses", "KIT-bad"}
    motions = MotionSet.open(file, cache=tmp_path / "cache")
    assert motions.motions == [("KIT-3-walk_poses", 0, 100)]
    expected = poses.reshape(200, 52, 3)[::2][:, [*range(1, 22), 22, 37]]  # the root is turned: AMASS is z up
    np.testing.assert_allclose(motions.pose[:, 1:], expected, atol=1e-5)


def test_the_same_motions_give_the_same_file_and_one_copy(tmp_path: Path) -> None:
    files = [write_motion_set(tmp_path / name) / FILE for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    first, second = (MotionSet.open(file, cache=tmp_path / "cache") for file in files)
    assert len(copies(tmp_path / "cache")) == 1 and np.array_equal(first.pose, second.pose)
    assert not [*(tmp_path / "cache").glob(".*building*")]


def test_windows_lie_side_by_side_within_their_motions(file: Path, tmp_path: Path) -> None:
    motions = MotionSet.open(file, cache=tmp_path / "cache")
    starts = motions.windows(16)
    assert len(starts) == 70 // 16 + 64 // 16 + 95 // 16
    for start in starts:
        assert sum(motion.start <= start and start + 16 <= motion.stop for motion in motions.motions) == 1
    assert np.array_equal(motions.read(starts[-2:], 16)[1], motions.pose[starts[-1] : starts[-1] + 16])


def test_a_step_has_the_same_motions_for_any_number_of_workers(file: Path) -> None:
    def motions(step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        return MotionStream([file], frames=16, batch_size=7, seed=3, rank=rank, world=world)(step).numpy()

    whole = motions(2)
    assert whole.shape == (7, 16, 69) and np.array_equal(whole, motions(2))
    shares = np.concatenate([motions(2, rank, 3) for rank in range(3)])
    assert sorted(map(bytes, shares)) == sorted(map(bytes, whole))
    assert not np.array_equal(whole, motions(3))
    seen = {bytes(window) for step in range(2) for window in motions(step)}  # 13 windows are a pass
    assert len(seen) >= 13


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:400]), "no readable Parquet file"),
        (lambda file: pq.write_table(pa.table({"motion_id": ["a"]}), file), "holds no motions of this project"),
        (lambda file: file.unlink(), "there is no such motion set"),
    ],
)
def test_a_damaged_set_is_named(file: Path, tmp_path: Path, spoil: object, message: str) -> None:
    spoil(file)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        MotionSet.open(file, cache=tmp_path / "cache")


def test_rows_that_are_not_those_of_the_metadata_leave_no_copy(file: Path, tmp_path: Path) -> None:
    table, metadata = pq.read_table(file), pq.read_metadata(file).metadata
    with pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table.slice(0, 100))
        writer.add_key_value_metadata({METADATA: metadata[METADATA]})
    with pytest.raises(InputError, match="not what its metadata says"):
        MotionSet.open(file, cache=tmp_path / "cache")
    assert copies(tmp_path / "cache") == []


def test_motions_that_are_too_short_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no motion of 60 frames or more in it; the first: clip0, 12 frames are"):
        write_motion_set(tmp_path, lengths=(12, 13))
    file = write_motion_set(tmp_path, lengths=(64,)) / FILE
    with pytest.raises(InputError, match="no motion has 90 frames"):
        MotionStream([file], frames=90, batch_size=2, seed=0)


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "not finite real numbers"), (1e6, "turns a joint by 1e.06 rad")]
)
def test_poses_that_are_no_angles_are_left_out(tmp_path: Path, value: float, reason: str) -> None:
    amass(tmp_path / "amass/good.npz", 200)
    poses = amass(tmp_path / "amass/bad.npz", 200)
    poses[7, 9] = value
    np.savez(tmp_path / "amass/bad.npz", poses=poses, trans=np.zeros((200, 3)), mocap_framerate=30.0)
    main(MakeMotionSetSpec(motions=tmp_path / "amass", out=tmp_path / "set"))
    (entry,) = read_facts(tmp_path / "set" / FILE).skipped
    assert entry["what"] == "bad" and re.search(reason, entry["reason"])


def test_a_damaged_copy_is_built_again(file: Path, tmp_path: Path) -> None:
    whole = np.array(MotionSet.open(file, cache=tmp_path / "cache").pose)
    (copy,) = copies(tmp_path / "cache")
    (copy.folder / "pose.npy").unlink()
    assert np.array_equal(MotionSet.open(file, cache=tmp_path / "cache").pose, whole)
