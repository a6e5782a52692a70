"""A checkpoint and the features of a person's track in, SMPL parameters of every frame out.

N frames of a track, T frames of a window, F feature size.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from numpy.typing import NDArray

from glot import cli
from glot.checkpoint import Checkpoint, check_features, load_checkpoint
from glot.errors import InputError
from glot.location import location
from glot.model import GLoT, SMPLParams
from glot.official import load_official
from glot.rotation import rotmat_to_axis_angle
from glot.schema import Manifest, column
from glot.sliding import SlidingGLoT
from glot.store import FeatureStore
from glot.windows import prediction_order

OPEN_MODEL = Path(__file__).parent / "assets" / "glot_open"  # trained by the project, of features of the open ResNet-50
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


def checkpoint_path(named: Path) -> Path:
    """The checkpoint that an option names; "open" is the one that comes with the project."""
    return OPEN_MODEL if str(named) == "open" else named


def load_model(path: Path) -> Checkpoint:
    """The checkpoint at ``path``: our folder or a published .pth.tar file."""
    path = checkpoint_path(path)
    if path.is_file():
        return load_official(path)
    if not path.is_dir():
        raise InputError(f"--checkpoint {path}: there is no such folder; train one with python -m glot.train_ray")
    return load_checkpoint(path)


def load_model_for(path: Path, manifest: Manifest) -> Checkpoint:
    """``load_model``, and an InputError if the features do not suit it.

    Nobody recorded which weights made the features of a published model, so only their size is checked there.
    """
    path = checkpoint_path(path)
    saved = load_model(path)
    if path.is_dir():
        check_features(saved, manifest)
        return saved
    size = manifest.backbone["feature_size"]
    if size != saved.model.config.feature_size:
        raise InputError(f"{path}: takes {saved.model.config.feature_size} numbers a frame, the features have {size}")
    return saved


@torch.no_grad()
def predict_track(
    model: GLoT, features: NDArray, *, protocol: str = "corrected", local: bool = True, batch_size: int = 64
) -> SMPLParams:
    """features (N, F) -> SMPLParams of N frames on the CPU: rotmats (N, 24, 3, 3), betas (N, 10), cam (N, 3).

    Frame i is the middle one of the model's answer to the window around it; beyond the ends of the track its first and
    last row repeat, so any N >= 1 will do. ``protocol="official"`` returns the last T/2 - 1 frames in reversed order,
    as the released evaluation does. ``local=False`` returns what the global branch says, before the local one corrects
    it. Runs on the device of the model, whose training mode is left as it was.
    """
    frames, device = model.config.frames, next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        sliding = SlidingGLoT(model, local=local)
        batches = []
        for start in range(0, len(features), batch_size):
            first, stop = start - frames // 2, min(start + batch_size, len(features)) - frames // 2 + frames - 1
            rows = np.arange(first, stop).clip(0, len(features) - 1)
            batches.append(sliding(torch.from_numpy(features[rows]).to(device)))
    finally:
        model.train(training)
    order = torch.from_numpy(prediction_order(len(features), frames, protocol=protocol))
    return SMPLParams(*(torch.cat(parts).cpu()[order] for parts in zip(*batches, strict=True)))


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
