"""The command that predicts: videos in, a folder of bodies each out; or a feature set in, SMPL parameters out."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer

from glot import cli
from glot.capture.capture import (
    NOBODY,
    Options,
    Studio,
    capture,
    check_tracks,
    done_before,
    find_videos,
    in_words,
    name_below,
)
from glot.errors import InputError
from glot.features.schema import column
from glot.features.store import FeatureStore
from glot.human.rotation import rotmat_to_axis_angle
from glot.location import location
from glot.models.inference import load_model_for, predict_track

PREDICTIONS = pa.schema(
    [
        ("track_id", pa.string()),
        ("frame_index", pa.int32()),
        ("pose", pa.list_(pa.list_(pa.float32(), 3), 24)),  # axis-angle, rad, camera frame
        ("betas", pa.list_(pa.float32(), 10)),
        ("cam", pa.list_(pa.float32(), 3)),  # s, tx, ty of the crop (glot.human.camera)
        ("bbox", pa.list_(pa.float32(), 4)),  # as in the features: px
        ("crop_scale", pa.float32()),
    ]
)


def main(
    video: Annotated[Path | None, typer.Argument(help="A video, or a folder of videos at any depth.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="For videos: the folder, OUT/NAME/ for each. With --features: the .parquet file to write."),
    ] = None,
    checkpoint: Annotated[
        Path, typer.Option(help="Folder of a checkpoint; a published .pth.tar file; or open, the project's own.")
    ] = Path("open"),
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    backbone: Annotated[str, typer.Option(help="What looks at the crops: blazepose, or resnet50.")] = "blazepose",
    weights: Annotated[Path | None, typer.Option(help="Of resnet50: SPIN's, for published checkpoints.")] = None,
    detector_weights: Annotated[
        Path | None,
        typer.Option(help="A torchvision person detector's weights (Faster R-CNN, SSDlite) instead of BlazePose's."),
    ] = None,
    tiles: Annotated[
        int, typer.Option(min=0, help="BlazePose's detector looks closer, too: in so many squares along a side.")
    ] = 0,
    tracks: Annotated[
        Path | None,
        typer.Option(help="Who is where, instead of a detector: JSON or MOT's text; a file, or a folder of them."),
    ] = None,
    fit: Annotated[
        str,
        typer.Option(
            help="What is drawn to BlazePose's 2D landmarks: limbs; camera, where bodies stand; none, the model alone."
        ),
    ] = "limbs",
    focal: Annotated[float | None, typer.Option(help="Focal length in px. Default: the picture's diagonal.")] = None,
    smooth: Annotated[bool, typer.Option("--smooth", help="Calm the bodies with the one-euro filter.")] = False,
    pkl: Annotated[bool, typer.Option("--pkl", help="Also people.pkl, as of VIBE's and TCMR's demos.")] = False,
    bvh: Annotated[bool, typer.Option("--bvh", help="Also a .bvh file for each person.")] = False,
    gltf: Annotated[bool, typer.Option("--gltf", help="Also people.glb: everybody, animated.")] = False,
    film: Annotated[bool, typer.Option(help="Draw overlay.mp4, which takes a third of the time.")] = True,
    features: Annotated[
        Path | None,
        typer.Option(parser=location, help="Instead of a video: feature sets, a folder or URI of DATASET/SPLIT."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="With --features: which dataset.")] = "3dpw",
    split: Annotated[str, typer.Option(help="With --features: which split of it.")] = "test",
    track: Annotated[str, typer.Option(help="With --features: only this track.")] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="With --features: windows at once.")] = 64,
) -> int:
    """Reconstructs the bodies of everybody in a video, frame by frame.

    Example: `python -m glot.predict walk.mp4 --out bodies` writes bodies/walk/: for each person person-1.npz and
    .parquet (pose, betas, cameras, joints3d, keypoints2d, boxes) and a still, person-1.png; overlay.mp4, the bodies
    over the video and from the side; and summary.json. It needs nothing but the video; BlazePose's networks are
    fetched once.

    With SMPL, SPIN's weights and a published checkpoint: `--body body --backbone resnet50 --weights
    body/spin_model_checkpoint.pth.tar --checkpoint model.pth.tar`.

    In a folder of videos each is done whole or not at all; the same command goes on after any interruption.
    pipelines/predict_videos.py does several at once. Exit code 1: in some video nobody was found, or a video of a
    folder cannot be read.

    From features that were extracted before: `python -m glot.predict --features features --checkpoint runs/first/best
    --out bodies.parquet`, one row a frame: track_id, frame_index, pose (24 x 3 axis-angle), betas (10), cam (s, tx,
    ty of the crop), bbox, crop_scale.
    """
    if out is None:
        raise InputError("--out is missing: where the results go")
    if (video is None) == (features is None):
        raise InputError("give either a video (or a folder of videos) or --features" + (", not both" if video else ""))
    if features is not None:
        predict_features(features / dataset / split, out=out, checkpoint=checkpoint, track=track, batch_size=batch_size)
        return 0
    assert video is not None
    options = Options(
        checkpoint=checkpoint, body=body, backbone=backbone, weights=weights, detector_weights=detector_weights,
        tiles=tiles, tracks=tracks, fit=fit, focal=focal, smooth=smooth, pkl=pkl, bvh=bvh, gltf=gltf, film=film,
    )  # fmt: skip
    return predict_videos(video, out=out, options=options)


def predict_videos(root: Path, *, out: Path, options: Options) -> int:
    """One video after the other; the exit code. InputError if the only one cannot be read."""
    videos = find_videos(root)
    check_tracks(videos, options)
    studio = Studio(options)
    failed = []
    for name, path in videos.items():
        folder = out / name
        try:
            if summary := done_before(folder, studio.settings):
                print(f"{name}: done before; {in_words(summary)}", flush=True)
            else:
                summary = capture(path, folder, studio, named=name_below(root, path))
                print(f"{name}: {in_words(summary)}\n{folder}", flush=True)
            if summary["outcome"] == NOBODY:
                failed.append(name)
        except InputError as error:
            if root.is_file():
                raise
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from None
    if len(videos) > 1:
        print(f"{len(videos) - len(failed)} of {len(videos)} videos have bodies: {out}")
    return 1 if failed else 0


def predict_features(folder: Path, *, out: Path, checkpoint: Path, track: str, batch_size: int) -> None:
    """SMPL parameters of every frame of a feature set, one Parquet row a frame."""
    if out.suffix != ".parquet":
        raise InputError(f"--out {out}: must end in .parquet")
    store = FeatureStore.open(folder)
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
