"""A feature set and a checkpoint in; a Parquet file with SMPL parameters, one row for each frame, out."""

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from glot import cli
from glot.capture.spec import PredictSpec
from glot.errors import InputError
from glot.features.schema import column
from glot.features.store import FeatureStore
from glot.human.rotation import rotmat_to_axis_angle
from glot.location import for_arrow, move_in, temporary_of
from glot.models.inference import load_model_for, predict_track, print_notes
from glot.models.prediction.track_predictors import track_predictor

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


def predict_features(spec: PredictSpec) -> None:
    """Writes the predictions for a feature set, or for one track of it. InputError if the file cannot be written."""
    assert spec.features is not None
    out = spec.result
    store = FeatureStore.open(spec.features / spec.dataset / spec.split)
    saved = load_model_for(spec.checkpoint, store.manifest)
    print_notes(saved)
    predictor = track_predictor(saved.model.to("cuda" if torch.cuda.is_available() else "cpu"))
    tracks = [store.track(spec.track)] if spec.track else store.tracks
    temporary = temporary_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(for_arrow(temporary), PREDICTIONS) as writer:
            for track in cli.progress(tracks, total=len(tracks), what="predicting"):
                params = predict_track(predictor, store.features_of(track.rows), batch_size=spec.batch_size)
                columns: dict[str, Any] = {
                    "track_id": [track.track_id] * (track.stop - track.start),
                    "frame_index": store.frame_index[track.rows],
                    "pose": rotmat_to_axis_angle(params.rotmats).numpy(),
                    "betas": params.betas.numpy(),
                    "cam": params.cam.numpy(),
                    "bbox": store.bbox[track.rows],
                    "crop_scale": store.crop_scale[track.rows],
                }
                arrays = [column(columns[field.name], field.type) for field in PREDICTIONS]
                writer.write_table(pa.table(arrays, schema=PREDICTIONS))
        move_in(temporary, out)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error}); choose another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    print(f"{sum(track.stop - track.start for track in tracks)} frames of {len(tracks)} tracks: {out}")
