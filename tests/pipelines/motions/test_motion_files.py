"""Folders and damaged files of motions: what is read, what is left out, and what the messages name."""

import re
from pathlib import Path

import numpy as np
import pytest

from glot.errors import InputError
from pipelines.motions.mocap import load_motions
from pipelines.motions.subjects import subject_of
from tests.pipelines.motions import cmu_files


def number_of(file: Path, start: str, *, nth: int = 0) -> int:
    """The line, from 1, of the nth line that begins with ``start``."""
    lines = file.read_text().splitlines()
    return [n for n, line in enumerate(lines, 1) if line.strip().startswith(start)][nth]


def change(file: Path, number: int, new: str | None) -> None:
    """Replaces a line; None removes it and everything after it."""
    lines = file.read_text().splitlines()
    lines = lines[: number - 1] if new is None else [*lines[: number - 1], new, *lines[number:]]
    file.write_text("\n".join(lines) + "\n")


# What begins the line (the second of its kind in a motion), what it becomes, what is said of it. None: cut off there.
MOTIONS = [
    ("lfemur", "lfemur 1.0 2.0", "2 values for 'lfemur', expected 3"),
    ("lfemur", "lfemur 1.0 2.0 3.0 4.0", "4 values for 'lfemur', expected 3"),
    ("lfemur", "tail 1.0", "'tail' is no moving bone of the skeleton"),
    ("2", "3", "frame 3 after frame 1"),
    ("lfemur", "lradius 3.0", "1 values for 'lradius', expected 1, once a frame"),
]


@pytest.mark.parametrize("start, new, said", MOTIONS)
def test_a_damaged_motion_names_file_line_and_remedy(tmp_path: Path, start: str, new: str, said: str) -> None:
    file = cmu_files.write_pair(tmp_path, frames=4)
    number = number_of(file, start, nth=0 if start == "2" else 1)
    change(file, number, new)
    with pytest.raises(InputError, match=f"01_01.amc: line {number}: {re.escape(said)}.*(download|the .asf)") as error:
        load_motions(file)
    assert "\n" not in str(error.value)


def test_a_motion_that_was_cut_off(tmp_path: Path) -> None:
    file = cmu_files.write_pair(tmp_path, frames=4)
    last = number_of(file, "lfemur", nth=3)
    change(file, last, None)
    with pytest.raises(InputError, match=f"01_01.amc: line {last - 1}: the frame before has no values for 'lfemur'"):
        load_motions(file)
    file.write_text(file.read_text()[:60])
    with pytest.raises(InputError, match="01_01.amc: line 2: 0 frames; a motion has at least two.*download"):
        load_motions(file)


@pytest.mark.parametrize("value, said", [("1.0x", "could not convert"), ("nan", "frame 2: a value that is not a")])
def test_a_motion_with_a_value_that_is_no_number(tmp_path: Path, value: str, said: str) -> None:
    file = cmu_files.write_pair(tmp_path, frames=4)
    change(file, number_of(file, "ltibia", nth=1), f"ltibia {value}")
    with pytest.raises(InputError, match=f"01_01.amc: bone 'ltibia'.*{said}.*; download the file again"):
        load_motions(file)


SKELETONS = [
    ("direction", "direction 0.1 x 0.2", "'direction 0.1 x 0.2': could not convert"),
    ("length 2", "length", "'length': list index out of range"),
    ("axis 0 0 20", "axis 0 0", "'axis 0 0'"),
    ("axis 0 0 20", "axis 0 0 20 ABC", "'axis 0 0 20 ABC'"),
]


@pytest.mark.parametrize("start, new, said", SKELETONS)
def test_a_damaged_skeleton_names_file_line_and_remedy(tmp_path: Path, start: str, new: str, said: str) -> None:
    motion = cmu_files.write_pair(tmp_path, frames=4)
    number = number_of(tmp_path / "01.asf", start)
    change(tmp_path / "01.asf", number, new)
    with pytest.raises(InputError, match=f"01.asf: line {number}: {re.escape(said)}.*download the file again") as error:
        load_motions(motion)
    assert "\n" not in str(error.value)


def test_skeletons_that_cannot_be_used(tmp_path: Path) -> None:
    motion, skeleton = cmu_files.write_pair(tmp_path, frames=4), tmp_path / "01.asf"
    whole = skeleton.read_text()
    change(skeleton, number_of(skeleton, ":hierarchy"), None)
    with pytest.raises(InputError, match=r"01.asf: line \d+: the file ends without.*download the file again"):
        load_motions(motion)
    skeleton.write_text(whole.replace(" lfemur", " thigh"))
    with pytest.raises(InputError, match="01.asf: no bone 'lfemur'; only skeletons of the CMU database"):
        load_motions(motion)
    skeleton.write_text(whole.replace("lfemur ltibia", "lfemur lshin"))
    with pytest.raises(InputError, match="01.asf: bone 'lshin' is in :hierarchy but not in :bonedata"):
        load_motions(motion)
    with pytest.raises(InputError, match="01.asf: is a skeleton without motion; give the .amc"):
        load_motions(skeleton)
    skeleton.unlink()
    with pytest.raises(InputError, match="01_01.amc: its skeleton 01.asf is missing; mocap.cs.cmu.edu has it"):
        load_motions(motion)


def test_damaged_bvh_files_name_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a.bvh"
    text = cmu_files.bvh_text(
        cmu_files.random_motion(frames=6), names=cmu_files.MOTIONBUILDER, arms_down=False, t_pose=False
    )
    file.write_text(text)
    row = number_of(file, "Frame Time") + 3
    digits = text.splitlines()[row - 1].replace(".", "x", 1)
    offset = number_of(file, "OFFSET", nth=4)
    for changed, new, named, said in (
        (row, "1 2 3", row, "3 numbers"),
        (row, None, row - 1, "the end, after 2 frames"),
        (row, digits, row, "'[0-9x-]+' is not a finite number"),
        (row - 3, "Frame Time: 0", row - 5, "no 'Frames:' and 'Frame Time:' after MOTION"),
        (offset, "OFFSET 1 two 3", offset, "is not a whole BVH file .could not convert"),
    ):
        file.write_text(text)
        change(file, changed, new)
        with pytest.raises(InputError, match=rf"a.bvh: line {named}: {said}.*download or export it again"):
            load_motions(file)


def test_a_folder_as_cmu_gives_it_and_a_flat_one(tmp_path: Path) -> None:
    for subject in ("01", "02", "127"):
        folder = tmp_path / "tree" / "subjects" / subject
        for trial in ("01", "12"):
            cmu_files.write_pair(folder, subject=subject, trial=trial, seed=int(subject))
            cmu_files.write_pair(tmp_path / "flat", subject=subject, trial=trial, seed=int(subject))
    tree, flat = load_motions(tmp_path / "tree"), load_motions(tmp_path / "flat")
    assert list(flat) == ["01_01", "01_12", "02_01", "02_12", "127_01", "127_12"]
    assert [clip.subject for clip in flat.values()] == ["01", "01", "02", "02", "127", "127"]
    assert [clip.subject for clip in tree.values()] == [clip.subject for clip in flat.values()]
    for name, clip in flat.items():
        same = tree[f"subjects-{clip.subject}-{name}"]
        np.testing.assert_array_equal(clip.poses, same.poses)
    # Skeletons in a folder of their own are found by name.
    (tmp_path / "apart" / "asf").mkdir(parents=True)
    for file in sorted((tmp_path / "flat").iterdir()):
        target = tmp_path / "apart" / ("asf" if file.suffix == ".asf" else "amc") / file.name.upper()
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    assert len(load_motions(tmp_path / "apart")) == 6


def test_one_damaged_file_among_many_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trial in range(1, 26):
        file = cmu_files.write_pair(tmp_path, trial=f"{trial:02d}", frames=5)
    file.write_text("#!OML:ASF\n")
    (tmp_path / "01_02.bvh").write_text("HIERARCHY\n")
    clips = load_motions(tmp_path)
    assert len(clips) == 24
    told = capsys.readouterr().err
    assert "left out: " in told and "01_25.amc: line" in told and "01_02.bvh: line 1" in told
    assert "2 of 26 motion files are left out" in told and "motion files: 26/26" in told
    for file in tmp_path.glob("*.amc"):
        file.write_text("cut")
    with pytest.raises(InputError, match="no motion file in it can be read; the first of 26: .*01_01.amc"):
        load_motions(tmp_path)


def test_of_two_files_with_the_same_clip_the_original_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cmu_files.write_pair(tmp_path, frames=9)
    other = cmu_files.random_motion(frames=21, seed=1)
    text = cmu_files.bvh_text(other, names=cmu_files.MOTIONBUILDER, arms_down=False, t_pose=False)
    (tmp_path / "01_01.bvh").write_text(text)
    assert len(load_motions(tmp_path)["01_01"]) == 3
    assert "01_01.bvh: clip '01_01' is also in another file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, subject",
    [("01_05", "01"), ("subjects-7-07_01", "07"), ("127_03-run", "127"), ("02_01_poses", "02"), ("dance_a", ""),
     ("walk", ""), ("5_1", ""), ("take2019_01", ""), ("aiming1_subject3", "subject3")],
)  # fmt: skip
def test_subjects_of_names(name: str, subject: str) -> None:
    assert subject_of(name) == subject


def test_a_table_of_people_in_an_npz_file(tmp_path: Path) -> None:
    clip = {"poses": np.zeros((5, 72)), "trans": np.zeros((5, 3))}
    arrays = {f"{name}/{key}": value for name in ("01_01", "b") for key, value in clip.items()}
    table = {"clips": np.array(["b", "01_01"]), "subjects": np.array(["anna", "9"])}
    np.savez(tmp_path / "a.npz", **arrays, **table, splits=np.array(["test", "train"]))
    clips = load_motions(tmp_path / "a.npz")
    assert {name: (c.subject, c.split) for name, c in clips.items()} == {"01_01": ("9", "train"), "b": ("anna", "test")}
    np.savez(tmp_path / "b.npz", **arrays, **table)
    assert [(c.subject, c.split) for c in load_motions(tmp_path / "b.npz").values()] == [("9", ""), ("anna", "")]
    np.savez(tmp_path / "c.npz", **arrays, **table, splits=np.array(["test"]))
    with pytest.raises(InputError, match="c.npz: 'clips', 'subjects' and 'splits' have different lengths"):
        load_motions(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", **arrays)
    assert [(c.subject, c.split) for c in load_motions(tmp_path / "d.npz").values()] == [("01", ""), ("", "")]
