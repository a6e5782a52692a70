"""An extraction that earlier code began (``stored/extraction``): today's code continues it to the same feature set."""

import json
import shutil
from pathlib import Path

import numpy as np

from glot.features.schema import MANIFEST, read_manifest, read_table
from pipelines.extract_features import main
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures.threedpw import write_sequence

STORED = Path(__file__).parent / "stored"


def test_an_interrupted_extraction_continues(local_ray: None, tmp_path: Path) -> None:
    for seed, name in ((1, "walk_00"), (2, "walk_01")):
        write_sequence(tmp_path / "data", name, frames=4, people=1, seed=seed)
    shutil.copytree(STORED / "extraction", tmp_path / "features")
    folder = tmp_path / "features" / "3dpw" / "test"
    done = folder / "part-walk_00.parquet"
    before = (done.read_bytes(), done.stat().st_mtime_ns)
    assert not (folder / MANIFEST).exists()
    spec = ExtractSpec(dataset="3dpw", root=tmp_path / "data", out=tmp_path / "features", split="test", workers=1)
    assert main(spec) == 0
    assert (done.read_bytes(), done.stat().st_mtime_ns) == before
    assert [part["name"] for part in read_manifest(folder).parts][0] == "part-walk_00.parquet"
    assert len(read_manifest(folder).parts) == 2
    rows = read_table(folder).to_pylist()
    wanted = json.loads((STORED / "extracted_rows.json").read_text())
    assert [(row["track_id"], row["frame_index"]) for row in rows] == [
        (row["track_id"], row["frame_index"]) for row in wanted
    ]
    for row, known in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(row["bbox"], known["bbox"], rtol=1e-5)
        np.testing.assert_allclose(row["feature"][:8], known["feature"], rtol=1e-3, atol=1e-3)
