"""Videos through the whole job: the rows of a plain loop, whole or cut into ranges; each damage is named once."""

import json
import os
import subprocess
import sys
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
from pipelines.decoders import unit_cuts
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from pipelines.sets.plan import Plan
from tests.fixtures.places import ROOT
from tests.fixtures.video import write_film, write_video

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def ray(local_ray: None) -> None:
    """For all tests of this module."""


def run(root: Path, out: Path, *, tracks: Path | None = None) -> int:
    return main(ExtractSpec(dataset="video", root=root, out=out, tracks=tracks, workers=2))


def found(out: Path) -> Manifest:
    return read_manifest(out / "video" / "test")


def test_people_in_videos_have_the_features_of_a_plain_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    capsys.readouterr()
    assert run(root, tmp_path / "out", tracks=tmp_path / "boxes.json") == 0
    assert "1 changed, 1 as before" in capsys.readouterr().out
    again = read_table(tmp_path / "out" / "video" / "test").sort_by([("track_id", "ascending"), ("image", "ascending")])
    table = table.sort_by([("track_id", "ascending"), ("image", "ascending")])
    assert again["image"].equals(table["image"])
    changed = [not new.equals(old) for new, old in zip(again["bbox"], table["bbox"], strict=True)]
    assert sum(changed) == 4  # the list is one object


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


def test_a_long_video_is_cut_and_gives_the_rows_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "films"
    root.mkdir()
    write_film(root / "long.mp4", frames=45, key_every=9)
    people = {"long.mp4": {name: {"frames": list(range(first, 45)), "bbox": [[4 + first, 4, 20, 30]] * (45 - first)}
                           for name, first in (("1", 0), ("2", 30))}}  # fmt: skip
    (tmp_path / "boxes.json").write_text(json.dumps(people))
    assert run(root, tmp_path / "whole", tracks=tmp_path / "boxes.json") == 0
    monkeypatch.setattr(unit_cuts, "UNIT_FRAMES", 12)
    monkeypatch.setattr(unit_cuts, "LONGEST_WHOLE", 20)
    assert run(root, tmp_path / "cut", tracks=tmp_path / "boxes.json") == 0
    whole, cut = (tmp_path / name / "video" / "test" for name in ("whole", "cut"))
    assert len(Plan.read(cut)) > 2 and len(Plan.read(whole)) == 1
    one, other = read_table(whole), read_table(cut)
    assert one.drop_columns("feature").equals(other.drop_columns("feature"))
    features = [np.array(table["feature"].to_pylist()) for table in (one, other)]
    assert np.abs(features[0] - features[1]).max() < 1e-5 * np.abs(features[0]).max()  # other crops share their batches
    assert read_manifest(whole).sources == read_manifest(cut).sources


DRIVER = """
import sys
from pathlib import Path
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec

if __name__ == "__main__":
    code = main(ExtractSpec(dataset="video", root=Path(sys.argv[1]), out=Path(sys.argv[2])))
    print("code", code, "heavy", sorted({"torch", "torchvision", "onnxruntime"} & sys.modules.keys()))
"""


def test_the_driver_does_not_hold_the_network_and_describes_it_all_the_same(tmp_path: Path) -> None:
    write_video(tmp_path / "films" / "a.mp4", frames=3)
    assert run(tmp_path / "films", tmp_path / "out") == 0
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    line = [sys.executable, str(script), str(tmp_path / "films"), str(tmp_path / "out")]
    ended = subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "all of them done before" in ended.stdout, ended.stdout + ended.stderr
    assert ended.stdout.endswith("code 0 heavy []\n")
    line[2] = str(tmp_path / "none")  # an error in the other process is the driver's
    (tmp_path / "none").mkdir()
    other = "weights=Path('/no/such/file'), dataset="
    script.write_text(DRIVER.replace("dataset=", other))
    ended = subprocess.run(line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "InputError" in ended.stderr and "/no/such/file" in ended.stderr
