"""The memory of pipelines/import_features.py for a feature file of some gigabytes, made of random numbers.

Prints and writes benchmarks/out/import_memory.json: ``{"peak_rss_gb", "gigabytes", "rows", "seconds", "set_gb"}``.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import typer
from figures import OUT, write_figures
from worker_memory import measure

from glot import cli
from glot.errors import InputError
from glot.features.schema import read_manifest

ROW_BYTES = 2048 * 4 + 49 * 3 * 4 + 14 * 3 * 8 + 72 * 4 + 10 * 4 + 4 * 8 + 8 + 8 + 4 * (20 + 68)
TRACK_ROWS = 700  # rows of each track except the first, which has half of all rows (long tracks are the worst case)
IMPORT = """
import atexit, sys
atexit.register(lambda: report(0))
from pipelines.import_features import command
sys.argv[0] = "import_features"
command()
"""


def make_db(path: Path, rows: int, folder: Path) -> None:
    """A 3DPW training file as TCMR writes it, with ``rows`` rows."""
    rng = np.random.default_rng(0)
    raw = folder / "features.raw"
    block = rng.normal(0, 1, (4096, 2048)).astype(np.float32)
    with raw.open("wb") as file:
        for start in range(0, rows, len(block)):
            block[:, 0] = np.arange(start, start + len(block))
            block[: min(len(block), rows - start)].tofile(file)
    long = rows // 2
    track = np.where(np.arange(rows) < long, 0, 1 + (np.arange(rows) - long) // TRACK_ROWS)
    frame = np.arange(rows) - np.searchsorted(track, track)
    content: dict[str, Any] = {
        "vid_name": np.char.add("sequence_", np.char.zfill(track.astype(str), 11)),
        "frame_id": frame.astype(np.int64),
        "img_name": np.char.add(
            "data/3dpw/imageFiles/courtyard_rangeOfMotions_00/image_", np.char.zfill(frame.astype(str), 10)
        ),
        "joints2D": rng.uniform(0, 1, (rows, 14, 3)),
        "joints3D": rng.normal(0, 1, (rows, 49, 3)).astype(np.float32),
        "pose": rng.normal(0, 1, (rows, 72)).astype(np.float32),
        "shape": rng.normal(0, 1, (rows, 10)).astype(np.float32),
        "bbox": np.tile([100.0, 100.0, 50.0, 50.0], (rows, 1)),
        "valid": np.ones(rows, np.int64),
        "features": np.asarray(np.memmap(raw, np.float32, "r", shape=(rows, 2048))),
    }
    joblib.dump(content, path)
    raw.unlink()


def main(
    gigabytes: Annotated[float, typer.Option(help="Size of the file, GB.", min=0.01)] = 5.0,
    scratch: Annotated[
        Path | None, typer.Option(help="Folder for the file, with space for twice its size.", show_default="/tmp")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "import_memory.json",
) -> None:
    """Make a file of random features with joblib, import it in a new process, and report that process's memory.

    `python benchmarks/import_memory.py --gigabytes 5`
    """
    rows = int(gigabytes * 1e9 / ROW_BYTES)
    with tempfile.TemporaryDirectory(prefix="import-memory-", dir=scratch) as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 2.2e9 * gigabytes:
            raise InputError(f"--scratch {folder.parent}: {2.2 * gigabytes:.1f} GB are needed there")
        db = folder / "3dpw_train_db.pt"
        make_db(db, rows, folder)
        size = db.stat().st_size
        options = ["--dataset", "3dpw", "--split", "train", "--src", db, "--out", folder / "features"]
        start = time.perf_counter()
        _, peak = measure(IMPORT, *options)
        seconds = time.perf_counter() - start
        manifest = read_manifest(folder / "features" / "3dpw" / "train")
    if manifest.rows != rows:
        raise InputError(f"{manifest.rows} rows imported of {rows}")
    figures = {
        "peak_rss_gb": round(peak / 1e3, 3),
        "gigabytes": round(size / 1e9, 3),
        "rows": rows,
        "seconds": round(seconds, 1),
        "set_gb": round(sum(part["bytes"] for part in manifest.parts) / 1e9, 3),
    }
    write_figures(out, figures)


if __name__ == "__main__":
    cli.run(main)
