"""Extraction in int8: the change is printed, all sets of a folder share one network, and are not mixed with float32."""

import json
from pathlib import Path

import numpy as np
import pytest

from glot.errors import InputError
from glot.features.schema import read_manifest, read_table
from pipelines.decoders.threedpw import THREEDPW
from pipelines.extract_features import main
from pipelines.extraction.precision import sample_crops
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures.threedpw import write_sequence


def extract(root: Path, out: Path, **more: str) -> int:
    return main(ExtractSpec(dataset="3dpw", root=root, out=out, workers=2, **more))  # type: ignore[arg-type]


def features(out: Path, split: str = "train") -> np.ndarray:
    return np.array(read_table(out / "3dpw" / split, columns=["feature"])["feature"].to_pylist(), np.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_int8_features_are_close_to_float32_and_share_one_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "3dpw", tmp_path / "out"
    for split in ("train", "test"):
        write_sequence(root, f"{split}_00", split=split, frames=10)
    assert extract(root, out / "exact", split="train") == 0
    capsys.readouterr()
    assert extract(root, out / "small", split="train", precision="int8") == 0
    assert "int8: features of" in capsys.readouterr().out
    a, b = features(out / "exact"), features(out / "small")
    assert 1e-3 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.2
    (network,) = (out / "small").glob("*-int8.onnx")
    stamp = network.stat().st_mtime_ns
    assert extract(root, out / "small", split="test", precision="int8") == 0  # another split, the same network
    assert network.stat().st_mtime_ns == stamp
    hashes = {read_manifest(out / "small" / "3dpw" / split).backbone["hash"] for split in ("train", "test")}
    assert len(hashes) == 1 and read_manifest(out / "exact" / "3dpw" / "train").backbone["hash"] not in hashes
    with pytest.raises(InputError, match="another --out"):
        extract(root, out / "exact", split="train", precision="int8")
    assert json.loads((out / "exact" / "3dpw" / "train" / "manifest.json").read_text())["rows"] == len(a)


def test_crops_for_calibration_come_from_all_units(tmp_path: Path) -> None:
    from glot.human.body import load_body
    from glot.human.crop_rules import CropRule

    for number in range(3):
        write_sequence(tmp_path, f"train_{number:02d}", split="train", frames=12, seed=number)
    units = THREEDPW.find(tmp_path, "train")
    crops = sample_crops(THREEDPW, tmp_path, units, load_body(), CropRule())
    assert crops.dtype == np.uint8 and crops.shape[1:] == (224, 224, 3) and len(crops) == 3 * 4
    with pytest.raises(InputError, match="nothing to calibrate on"):
        sample_crops(THREEDPW, tmp_path, [], load_body(), CropRule())
