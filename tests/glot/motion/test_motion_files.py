"""What is written is read back, other readers understand it, and scripts made for VIBE's demo load the pickle."""

from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.human.joints import SMPL_JOINTS
from glot.human.rotation import axis_angle_to_rotmat
from glot.human.safe_pickle import load_pickle
from glot.motion.motion_files import ONCE, WRITERS, StoredMotion, read_motion, write_motion
from glot.motion.peers_pkl import write_peers_pkl
from glot.motion.person_motion import SHAPES, Motion, vertices
from tests.fixtures.motion import GAPPY, moving


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture(scope="module")
def motion(body: Body) -> Motion:
    return moving(body, person="7", seed=3)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_motion_comes_back(motion: Motion, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"person{suffix}"
    write_motion([motion], path)
    back = read_motion(path)
    for name in SHAPES:
        if name == "rotmats":  # through axis-angle
            np.testing.assert_allclose(back.rotmats, motion.rotmats, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(getattr(back, name), getattr(motion, name))
    assert all(getattr(back, name) == getattr(motion, name) for name in ONCE)
    assert [path.name for path in tmp_path.iterdir()] == [path.name]  # nothing temporary is left


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("folder", ["take:1", "s3:x", "100%20 #1?"])
def test_a_path_is_not_a_uri(
    motion: Motion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(folder) / f"person{suffix}"
    path.parent.mkdir()
    write_motion([motion], path)
    np.testing.assert_array_equal(read_motion(path).transl, motion.transl)
    assert [path.name for path in (tmp_path / folder).iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", WRITERS)
def test_writing_a_motion_again_changes_nothing(motion: Motion, tmp_path: Path, suffix: str) -> None:
    """A half turn has two axis-angle vectors; the file must not change from one to the other."""
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_motion([motion], first)
    write_motion([read_motion(first)], second)
    np.testing.assert_allclose(read_motion(second).rotmats, read_motion(first).rotmats, rtol=0, atol=1e-6)


def test_pieces_are_one_file_and_it_is_read_in_pieces(motion: Motion, tmp_path: Path) -> None:
    cuts = [motion.rows(slice(*ends)) for ends in ((0, 4), (4, 5), (5, len(motion)))]
    write_motion([motion], tmp_path / "whole.npz", tmp_path / "whole.parquet")
    write_motion(iter(cuts), tmp_path / "cut.npz", tmp_path / "cut.parquet")
    stored = StoredMotion(tmp_path / "cut.parquet")
    assert stored.frames.tolist() == motion.frames.tolist() and len(stored) == len(motion)
    for name in SHAPES:
        expected = getattr(read_motion(tmp_path / "whole.npz"), name)
        for suffix in WRITERS:
            np.testing.assert_array_equal(getattr(read_motion(tmp_path / f"cut{suffix}"), name), expected)
        for start, stop in ((3, 7), (0, 1), (8, 9), (0, len(motion))):
            np.testing.assert_array_equal(getattr(stored.rows(start, stop), name), expected[start:stop])
    stored.close()


def test_an_exception_while_writing_leaves_no_file(motion: Motion, tmp_path: Path) -> None:
    def broken() -> Iterator[Motion]:
        yield motion
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk"):
        write_motion(broken(), tmp_path / "a.npz", tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_parquet_rows_are_frames_to_any_reader(motion: Motion, tmp_path: Path) -> None:
    write_motion([motion], tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    rows = table.to_pylist()
    assert [row["frame"] for row in rows] == list(GAPPY) and [row["seen"] for row in rows] == motion.seen.tolist()
    assert rows[2]["joints3d"][SMPL_JOINTS.index("head")] == motion.joints3d[2, SMPL_JOINTS.index("head")].tolist()
    once = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert once["fps"] == "25.0" and once["person"] == "7" and (once["width"], once["height"]) == ("640", "360")


def test_npz_holds_no_pickle(motion: Motion, tmp_path: Path) -> None:
    write_motion([motion], tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fibU" for name in file.files)
        assert file["pose"].shape == (len(motion), 24, 3) and float(file["fps"]) == 25


def test_scripts_for_vibes_demo_load_the_pickle(body: Body, tmp_path: Path) -> None:
    people = [moving(body, person="3"), moving(body, person="left one", seed=1)]
    write_peers_pkl(tmp_path / "a.pkl", people, body, with_vertices=True)
    loaded = joblib.load(tmp_path / "a.pkl")
    assert list(loaded) == [3, "left one"]
    one, motion, count = loaded[3], people[0], len(GAPPY)
    shapes = {"pred_cam": (3,), "orig_cam": (4,), "pose": (72,), "betas": (10,), "joints3d": (49, 3), "bboxes": (4,)}
    assert {name: one[name].shape for name in shapes} == {name: (count, *rest) for name, rest in shapes.items()}
    assert one["joints2d"] is None and one["frame_ids"].tolist() == list(GAPPY)
    np.testing.assert_allclose(one["verts"] + motion.transl[:, None], vertices(motion, body), rtol=0, atol=1e-5)
    rotmats = axis_angle_to_rotmat(torch.from_numpy(one["pose"]).unflatten(-1, (24, 3)))
    output = body(rotmats, torch.from_numpy(one["betas"]))
    np.testing.assert_allclose(one["joints3d"], output.joints.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(one["bboxes"][:, 2:], 1.2 * motion.bbox[:, 2:])


def test_the_pickle_is_data_only_and_vertices_are_left_out(body: Body, motion: Motion, tmp_path: Path) -> None:
    write_peers_pkl(tmp_path / "a.pkl", [motion], body)
    safe = load_pickle(tmp_path / "a.pkl")  # refuses anything that would run code
    assert safe[7]["verts"] is None
    np.testing.assert_array_equal(safe[7]["pred_cam"], motion.cam)


def test_other_files_are_refused(motion: Motion, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", pose=np.zeros((2, 24, 3), np.float32))
    write_motion([motion], tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-200])
    write_motion([motion], tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-200])
    plain = pq.read_table(tmp_path / "whole.parquet").replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "bare.parquet")
    messages = {
        "other.npz": "no motion file of glot.predict", "bare.parquet": "no motion file of glot.predict",
        "cut.parquet": "not a complete", "cut.npz": "not a complete", "gone.npz": "no such file",
        "a.txt": ".npz or a .parquet",
    }  # fmt: skip
    for name, words in messages.items():
        with pytest.raises(InputError, match=words):
            read_motion(tmp_path / name)
