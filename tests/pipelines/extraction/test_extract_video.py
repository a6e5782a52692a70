"""Videos through the whole job: the rows of a plain loop; each damage is named once; a file that kills workers is set
aside."""

import json
import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.schema import Manifest, read_manifest, read_table
from glot.human.crop import crop_image, normalise
from glot.people.video import Video
from pipelines.extract_features import main
from pipelines.extraction.ledger import RECORDS
from pipelines.extraction.spec import ExtractSpec
from pipelines.extraction.tries import MOST_TRIES
from tests.fixtures.video import write_video

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def ray(local_ray: None) -> None:
    """For all tests of this module."""


def run(root: Path, out: Path, *, tracks: Path | None = None) -> int:
    return main(ExtractSpec(dataset="video", root=root, out=out, tracks=tracks, workers=2))


def found(out: Path) -> Manifest:
    return read_manifest(out / "video" / "test")


def test_people_in_videos_have_the_features_of_a_plain_loop(tmp_path: Path) -> None:
    root = tmp_path / "films"
    write_video(root / "a.mp4", frames=11)
    write_video(root / "deep" / "b.mkv", codec="libx264", frames=5)
    people = {
        "a.mp4": {
            "1": {"frames": [0, 1, 2, 9], "bbox": [[4, 4, 20, 30]] * 4},
            "2": {"frames": [1, 2, 3], "bbox": [[30, 4, 20, 30]] * 3},
        },
        "deep/b.mkv": {"1": {"frames": [4], "bbox": [[4, 4, 20, 30]]}},
    }
    (tmp_path / "boxes.json").write_text(json.dumps(people))
    assert run(root, tmp_path / "out", tracks=tmp_path / "boxes.json") == 0
    table = read_table(tmp_path / "out" / "video" / "test")
    assert table["image"].to_pylist() == [
        "a.mp4#0", "a.mp4#1", "a.mp4#2", "a.mp4#9", "a.mp4#1", "a.mp4#2", "a.mp4#3", "deep/b.mkv#4",
    ]  # fmt: skip
    assert table["track_id"].to_pylist()[4] == "a.mp4_2" and table["fps"].to_pylist() == [25.0] * 8
    with closing(Video(root / "a.mp4")) as video:
        crops = [crop_image(video.read(number), [40, 19, 30, 30], 1.2) for number in (1, 2, 3)]
    with torch.no_grad():
        wanted = load_backbone().module(normalise(torch.from_numpy(np.stack(crops)))).numpy()
    assert np.abs(np.array(table["feature"].to_pylist()[4:7]) - wanted).max() < 1e-5 * np.abs(wanted).max()
    with pytest.raises(InputError, match="started with crop box"):
        run(root, tmp_path / "out")  # without boxes it would be another set
    people["a.mp4"]["1"]["bbox"][0][0] = 5
    (tmp_path / "boxes.json").write_text(json.dumps(people))
    with pytest.raises(InputError, match="have changed since it was extracted"):
        run(root, tmp_path / "out", tracks=tmp_path / "boxes.json")


def test_broken_videos_are_named_once_and_the_others_are_extracted(tmp_path: Path) -> None:
    root = tmp_path / "films"
    write_video(root / "a.mp4")
    whole = write_video(root / "cut.mkv", frames=40, size=(320, 240)).read_bytes()
    (root / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (root / "text.avi").write_text("no video")
    assert run(root, tmp_path / "out") == 1
    manifest = found(tmp_path / "out")
    rows = read_table(tmp_path / "out" / "video" / "test").to_pandas().groupby("track_id").size()
    assert rows["a.mp4_0"] == 12 and 0 < rows["cut.mkv_0"] < 40 and len(rows) == 2
    named = {entry["what"].partition("#")[0]: entry for entry in manifest.skipped}
    assert "not a readable video" in named["text.avi"]["reason"] and len(manifest.skipped) == len(named) <= 2


@pytest.mark.slow
def test_a_file_that_kills_its_worker_is_set_aside_after_some_tries(tmp_path: Path) -> None:
    root = tmp_path / "films"
    write_video(root / "poison.mp4", frames=400)
    for name in "abc":
        write_video(root / f"{name}.mp4", frames=6)
    records, killed, ended = tmp_path / "out" / "video" / "test" / RECORDS, set[Path](), threading.Event()

    def kill() -> None:
        """Kills the worker at some moment of the work, as a crashing decoder does."""
        while not ended.wait(0.02):
            for note in set(records.glob("poison.mp4.try-*")) - killed:
                if text := note.read_text():
                    time.sleep(0.3 * len(killed))
                    os.kill(int(text.split()[0]), signal.SIGKILL)
                    killed.add(note)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert run(root, tmp_path / "out") == 1
    finally:
        ended.set()
        killer.join()
    assert len(killed) == MOST_TRIES
    (skipped,) = found(tmp_path / "out").skipped
    assert skipped["what"] == "poison.mp4" and f"died {MOST_TRIES} times" in skipped["reason"]
    assert skipped["frames"] == 400
    rows = read_table(tmp_path / "out" / "video" / "test").to_pandas().groupby("track_id").size()
    assert rows.to_dict() == {"a.mp4_0": 6, "b.mp4_0": 6, "c.mp4_0": 6}
    assert not list(records.glob("*.try-*"))
