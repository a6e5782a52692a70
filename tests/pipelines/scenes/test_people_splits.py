"""pipelines/scenes/people_splits.py: who is in a clip, and nobody in two splits."""

from pathlib import Path

import pytest

from glot.errors import InputError
from pipelines.motions.mocap import load_motions
from pipelines.motions.motion_clip import MotionClip
from pipelines.scenes.people_splits import CMU_SPLITS, LEFT_OUT, SPLITS, split_of, split_people
from pipelines.scenes.sequence_plan import split_clips
from tests.fixtures.several_people import SUBJECTS, clips_of_people, write_motions


@pytest.fixture(scope="module")
def clips() -> dict[str, MotionClip]:
    return clips_of_people(load_motions())


def test_nobody_is_in_two_splits(tmp_path: Path, clips: dict[str, MotionClip]) -> None:
    write_motions(tmp_path / "cmu.npz", clips)
    people = split_people(tmp_path, load_motions(tmp_path))
    assert {split: {people.people[clip] for clip in people.clips[split]} for split in SPLITS} == {
        split: {subject} for split, subject in SUBJECTS.items()
    }
    assert sorted(sum(people.clips.values(), ())) == sorted(load_motions(tmp_path)) and people.unknown == 0


def test_people_of_no_table_are_divided_by_a_hash() -> None:
    everybody = [f"{number:02d}" for number in range(1, 145)]
    counts = {split: sum(split_of(person) == split for person in everybody) for split in SPLITS}
    assert counts["train"] > 80 and 5 < counts["validation"] < counts["test"]
    assert all(split_of(person) == split for split, subjects in CMU_SPLITS.items() for person in subjects)
    assert len({subject for subjects in CMU_SPLITS.values() for subject in subjects}) == 25


def test_a_table_decides_before_names_do(tmp_path: Path, clips: dict[str, MotionClip]) -> None:
    names = sorted(clips)
    table = {"clips": names, "subjects": [f"p{i % 5}" for i in range(len(names))]}
    splits = [("test", "train", "train", "validation", "train")[i % 5] for i in range(len(names))]
    file = write_motions(tmp_path / "table.npz", clips, **table, splits=splits)
    for motions in (file, tmp_path):  # in a folder, the file's name is part of the names of its clips
        people = split_people(motions, load_motions(motions))
        assert {people.people[name] for name in people.clips["test"]} == {"p0"}
        assert len(people.clips["train"]) == sum(split == "train" for split in splits)
    splits[5] = "train"  # p0 again
    write_motions(file, clips, **table, splits=splits)
    with pytest.raises(InputError, match="p0 is in"):
        split_people(file, load_motions(file))
    write_motions(file, clips, **table, splits=["rest"] * len(names))
    with pytest.raises(InputError, match="in the split 'rest'; give train, validation, test"):
        split_people(file, load_motions(file))


def test_a_table_decides_about_other_clips_of_its_people(tmp_path: Path, clips: dict[str, MotionClip]) -> None:
    name, clip = next(iter(clips.items()))
    write_motions(tmp_path / "table.npz", {"one": clip}, clips=["one"], subjects=["01"], splits=["test"])
    other = next(f"{number}" for number in range(20, 30) if split_of(f"{number}") == "train")
    write_motions(tmp_path / "names.npz", clips | {f"{other}_01": clip})
    assert split_of("01") == "train"
    people = split_people(tmp_path, load_motions(tmp_path))
    assert f"names-{name}" in people.clips["test"] and people.clips["train"] == (f"names-{other}_01",)


def test_clips_of_the_cards_are_in_no_split_and_unknown_people_are_in_train(
    tmp_path: Path, clips: dict[str, MotionClip]
) -> None:
    clip = next(iter(clips.values()))
    write_motions(tmp_path / "old.npz", {name: clip for name in (*LEFT_OUT, "walking-walking_1", "running-running_2")})
    write_motions(tmp_path / "new.npz", clips)
    people = split_people(tmp_path, load_motions(tmp_path))
    assert sorted(people.left_out) == sorted(f"old-{name}" for name in LEFT_OUT) and len(LEFT_OUT) == 14
    assert people.unknown == 2 and {"old-walking-walking_1", "old-running-running_2"} <= set(people.clips["train"])
    assert not set(people.left_out) & set(sum(people.clips.values(), ()))


def test_the_left_out_clips_are_those_that_the_cards_sample_had_in_test() -> None:
    numbers = {"basketball": 5, "basketball_signal": 5, "jumping": 5, "running": 5, "soccer": 5, "walking": 5}
    names = [f"{action}-{action}_{i + 1}" for action, count in numbers.items() for i in range(count)]
    names += [f"directing_traffic-directing_traffic_{i}" for i in (1, 4)]
    names += [f"walking_extra-walking_{i}" for i in range(13, 53)]
    assert sorted(split_clips(sorted(names), seed=100)["test"]) == sorted(LEFT_OUT)  # --seed 100


def test_motions_of_nobody_known_are_refused() -> None:
    from pipelines.motions.spec import SHIPPED

    with pytest.raises(InputError, match="nobody for validation; a bench needs several people"):
        split_people(SHIPPED, load_motions())
