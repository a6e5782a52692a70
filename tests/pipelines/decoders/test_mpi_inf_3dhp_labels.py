"""MPI-INF-3DHP's annotation files: those that are broken, swapped, or point to other files are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from glot.errors import InputError
from glot.human.body import Body, load_body
from pipelines.decoders.clips import Decoded
from pipelines.decoders.mpi_inf_3dhp import decode, find_units
from tests.fixtures.mpi_inf_3dhp import annotations, write_sequence, write_test


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def clips_of(root: Path, body: Body, *, split: str = "train") -> Decoded:
    return decode(root, find_units(root, split)[0], body, "corrected")


def test_only_rows_with_pictures_are_read(tmp_path: Path, body: Body) -> None:
    path = write_test(tmp_path, frames=5)
    with h5py.File(path, "r+") as file:
        for name, tail in (("valid_frame", (1,)), ("annot2", (1, 17, 2)), ("univ_annot3", (1, 17, 3))):
            values = file[name][:]
            del file[name]
            file.create_dataset(name, (10**8, *tail), "f8", chunks=(5, *tail))[:5] = values  # 50 GB in a file of 20 kB
    found = clips_of(tmp_path, body, split="test")
    (clip,), counts = found.clips, found.counts
    assert len(clip) == 5 and counts["rows_without_picture"] == 10**8 - 5


def without(name: str) -> dict[str, Any]:
    data = annotations(26)
    del data[name]
    return data


def with_cell(name: str, value: Any) -> dict[str, Any]:
    data = annotations(26)
    data[name][0, 0] = value
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (without("annot3"), "no annot3 in it"),
        (without("cameras"), "no cameras in it"),
        ({**annotations(26), "cameras": np.array(["left", "right"], object)}, "cameras are not numbers"),
        ({**annotations(26), "annot2": np.zeros((26, 56))}, "annot2 has no cell for every camera"),
        (with_cell("annot2", np.zeros((26, 34))), r"annot2 is float64 \(26, 34\), expected numbers \(F, 56\)"),
        (with_cell("annot3", "text"), "annot3 is <U4"),
        (with_cell("annot3", np.zeros((25, 84))), "26 rows of annot2, 25 of annot3"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_training_labels_is_reported(tmp_path: Path, body: Body, data: Any, reason: str) -> None:
    write_sequence(tmp_path, frames=3, cameras=(0,), data=data)
    with pytest.raises(InputError, match=reason) as error:
        clips_of(tmp_path, body)
    assert "S1/Seq1/annot.mat#0" in str(error.value)


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.05, 0])
def test_cut_label_files_are_refused(tmp_path: Path, body: Body, kept: float) -> None:
    train = write_sequence(tmp_path, frames=3, cameras=(0,)) / "annot.mat"
    for path, split, kind in ((train, "train", "v5"), (write_test(tmp_path), "test", "v7.3")):
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(InputError, match=rf"not a readable MATLAB {kind}|no \w+ in it"):
            clips_of(tmp_path, body, split=split)


def test_the_formats_are_not_mixed_up(tmp_path: Path, body: Body) -> None:
    train, test = write_sequence(tmp_path, frames=3, cameras=(0,)) / "annot.mat", write_test(tmp_path)
    content = train.read_bytes()
    train.write_bytes(test.read_bytes())
    test.write_bytes(content)
    with pytest.raises(InputError, match="not a readable MATLAB v5 file"):
        clips_of(tmp_path, body)
    with pytest.raises(InputError, match="not a readable MATLAB v7.3"):
        clips_of(tmp_path, body, split="test")


def external(file: h5py.File) -> None:
    del file["annot2"]
    file["annot2"] = h5py.ExternalLink("/etc/passwd", "/annot2")


def raw_file(file: h5py.File) -> None:
    del file["annot2"]
    file.create_dataset("annot2", (24, 1, 17, 2), "u1", external=[("/etc/passwd", 0, 24 * 34)])


def shorter(file: h5py.File) -> None:
    values = file["univ_annot3"][:-1]
    del file["univ_annot3"]
    file["univ_annot3"] = values


def reversed_axes(file: h5py.File) -> None:
    values = file["annot2"][:].T
    del file["annot2"]
    file["annot2"] = values


def words(file: h5py.File) -> None:
    del file["valid_frame"]
    file["valid_frame"] = np.full((24, 1), b"yes")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external, "no annot2 in it"),
        (raw_file, "no annot2 in it"),
        (shorter, "24 of valid_frame, 24 of annot2, 23 of univ_annot3"),
        (reversed_axes, r"annot2 is float64 \(2, 17, 1, 24\), expected numbers \(N, 1, 17, 2\)"),
        (words, "valid_frame is |S3"),
    ],
)
def test_what_is_wrong_with_test_labels_is_reported(
    tmp_path: Path, body: Body, change: Callable[[h5py.File], None], reason: str
) -> None:
    path = write_test(tmp_path)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(InputError, match=reason) as error:
        clips_of(tmp_path, body, split="test")
    assert "TS1/annot_data.mat" in str(error.value)
