"""A checkpoint and the features of a person's track in, SMPL parameters of every frame out.

N frames of a track, T frames of a window, F feature size.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer

from glot import cli
from glot.errors import InputError
from glot.inference import load_model_for, predict_track
from glot.location import location
from glot.rotation import rotmat_to_axis_angle
from glot.schema import column
from glot.store import FeatureStore

PREDICTIONS = pa.schema(
    [
        ("track_id", pa.string()),
        ("frame_index", pa.int32()),
        ("pose", pa.list_(pa.list_(pa.float32(), 3), 24)),  # axis-angle, rad, camera frame
        ("betas", pa.list_(pa.float32(), 10)),
        ("cam", pa.list_(pa.float32(), 3)),  # s, tx, ty of the crop (glot.camera)
        ("bbox", pa.list_(pa.float32(), 4)),  # as in the features: px
        ("crop_scale", pa.float32()),
    ]
)


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, a published .pth.tar file, or open.")],
    features: Annotated[
        Path, typer.Option(parser=location, help="Folder or URI of the feature sets: FEATURES/DATASET/SPLIT.")
    ],
    out: Annotated[Path, typer.Option(help="The .parquet file to write.")],
    dataset: Annotated[str, typer.Option(help="Which dataset's features.")] = "3dpw",
    split: Annotated[str, typer.Option(help="Which split of it.")] = "test",
    track: Annotated[str, typer.Option(help="Only this track; all of them when left out.")] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at once.")] = 64,
) -> None:
    """Predict SMPL parameters for every frame of extracted features, one Parquet row per frame.

    Columns: track_id, frame_index, pose (24 x 3 axis-angle), betas (10), cam (s, tx, ty of the crop), bbox, crop_scale.

    Example: `python -m glot.predict --checkpoint runs/demo/train/best --features features --out bodies.parquet`
    """
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: must end in .parquet")
    store = FeatureStore.open(features / dataset / split)
    model = load_model_for(checkpoint, store.manifest).model
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tracks = [store.track(track)] if track else store.tracks
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, PREDICTIONS) as writer:
            for one in cli.progress(tracks, total=len(tracks), what="predicting"):
                params = predict_track(model, store.features[one.rows], batch_size=batch_size)
                columns: dict[str, Any] = {
                    "track_id": [one.track_id] * (one.stop - one.start),
                    "frame_index": store.frame_index[one.rows],
                    "pose": rotmat_to_axis_angle(params.rotmats).numpy(),
                    "betas": params.betas.numpy(),
                    "cam": params.cam.numpy(),
                    "bbox": store.bbox[one.rows],
                    "crop_scale": store.crop_scale[one.rows],
                }
                writer.write_table(pa.table([column(columns[f.name], f.type) for f in PREDICTIONS], schema=PREDICTIONS))
        os.replace(temporary, out)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    print(f"{sum(one.stop - one.start for one in tracks)} frames of {len(tracks)} tracks: {out}")


def command() -> None:
    """Entry point of ``glot-predict``."""
    cli.run(main)


if __name__ == "__main__":
    command()
