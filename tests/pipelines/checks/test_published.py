"""Counts compared with published counts: equal, fewer with an explanation, or too many."""

from typing import Any

from glot.features.schema import Manifest
from pipelines.checks.published import FIGURES, THREEDPW, compare, decoder_counts, sequence_of


def manifest(dataset: str, split: str, **values: Any) -> Manifest:
    return Manifest(
        **{
            "dataset": dataset, "split": split, "rows": 0, "tracks": 0, "backbone": {}, "crop": {}, "body": {},
            "parts": [], **values,
        }
    )  # fmt: skip


def lines(of: Manifest, names: set[str] | None = None, /, **found: int) -> str:
    everything = dict.fromkeys(
        ("sequences", "tracks", "rows", "valid rows", "evaluated rows", "windows at every row"), 0
    )
    return "\n".join(compare(of, {**everything, **{name.replace("_", " "): count for name, count in found.items()}},
                             names or set()))  # fmt: skip


def whole(split: str) -> set[str]:
    return {f"{name}_{person}" for name, people in THREEDPW[split].items() for person in range(people or 1)}


def test_the_lists_agree_with_the_figures() -> None:
    for split, sequences, people in (("train", 24, 34), ("validation", 12, 12), ("test", 24, 37)):
        assert (len(THREEDPW[split]), len(whole(split))) == (sequences, people)
    assert len(set().union(*THREEDPW.values())) == 60
    for figure in sum(FIGURES.values(), ()):
        assert 0 <= figure.low <= figure.high


def test_a_whole_set_has_the_published_counts() -> None:
    text = lines(manifest("3dpw", "test"), whole("test"), sequences=24, tracks=37, evaluated_rows=34_561)
    assert "34,561   published 34,561 (TCMR" in text
    assert not any(word in text for word in ("fewer", "too many", "explain"))
    text = lines(manifest("human36m", "train"), tracks=600, rows=780_000)
    assert "780,000   published 779,876 to 780,476" in text and "fewer" not in text


def test_too_few_are_explained_as_far_as_is_known() -> None:
    skipped = [{"what": "a.jpg", "reason": "truncated JPEG", "frames": 40}]
    of = manifest(
        "3dpw", "test", skipped=skipped, sources=[{"path": "a", "bytes": 9, "rows": 5, "rows_without_box": 3}]
    )
    text = lines(of, whole("test") - {"downtown_bar_00_1"}, sequences=24, tracks=36, evaluated_rows=34_000)
    assert "published 37: 1 fewer" in text and "34,000   published 34,561 (" in text and ": 561 fewer" in text
    for why in (
        "downtown_bar_00: 1 of its 2 people",
        "40 frames that could not be read",
        "3 rows without a usable box",
    ):
        assert f"explained by {why}" in text
    text = lines(manifest("human36m", "test"), tracks=239, rows=10)
    assert "nothing in the manifest explains the difference" in text


def test_too_many_are_reported() -> None:
    assert ": 71 too many" in lines(manifest("mpi_inf_3dhp", "test"), valid_rows=3_000)
    assert "at most 2,929" in lines(manifest("mpi_inf_3dhp", "test"), valid_rows=2_000)
    assert "too many" not in lines(manifest("mpi_inf_3dhp", "test"), valid_rows=2_929)


def test_unpublished_splits_and_other_sets_in_3dpws_layout_are_not_compared() -> None:
    assert lines(manifest("video", "all")) == "no figures are published for this split"
    assert "none of 3DPW's sequences" in lines(manifest("3dpw", "test"), {"walk_00_0"}, tracks=1)


def test_decoders_counts_are_added_up_over_files() -> None:
    sources = [{"path": "a", "bytes": 5, "files": 2, "rows": 3, "person_frames": 4}, {"path": "b", "person_frames": 6}]
    assert decoder_counts(manifest("3dpw", "test", sources=sources)) == {"person_frames": 10}


def test_what_describes_a_file_is_no_count_and_tracks_name_their_sequence() -> None:
    entry = {"path": "a.pkl", "bytes": 9, "modified": 1764229615123456789, "files": 3, "rows_without_box": 2}
    assert decoder_counts(manifest("3dpw", "test", sources=[entry])) == {"rows_without_box": 2}
    assert sequence_of("downtown_bar_00_1", "3dpw") == "downtown_bar_00"
    assert sequence_of("train-0001.tfrecord-17", "insta_variety") == "train-0001.tfrecord"
