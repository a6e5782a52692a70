"""A checkpoint and a feature set in; MPJPE, PA-MPJPE, MPVPE and Accel beside baselines and the paper's row out.

N frames of a track, J joints, V vertices. Errors are mm (Accel: mm / frame^2), averaged over frames, not tracks.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from glot import cli
from glot.config import ModelConfig
from glot.errors import InputError
from glot.features.schema import Manifest, parts
from glot.features.store import FeatureStore
from glot.features.windows import PROTOCOLS, check_protocol
from glot.human.body import Body, load_body, require_body
from glot.location import location, open_parquet, write_whole
from glot.models.checkpoint import Checkpoint
from glot.models.cost import PAPER as PAPER_MACS
from glot.models.cost import cost_of
from glot.models.glot import GLoT
from glot.models.inference import load_model, load_model_for, predict_track
from glot.models.smpl_params import ESTIMATE, SMPLParams, to_params
from glot.scoring.linear_probe import LinearProbe
from glot.scoring.track_errors import score, track_truth

METRICS = {"pa_mpjpe": "PA-MPJPE", "mpjpe": "MPJPE", "mpvpe": "MPVPE", "accel": "Accel"}
# Tables 1 and 2 of the paper, mm and mm / frame^2.
PAPER = {
    ("3dpw", "table1_3dpw"): {"mpjpe": 80.7, "pa_mpjpe": 50.6, "mpvpe": 96.3, "accel": 6.6},
    ("3dpw", "table2_3dpw"): {"mpjpe": 89.9, "pa_mpjpe": 53.5, "mpvpe": 107.8, "accel": 6.7},
    ("mpi_inf_3dhp", "table1_h36m_mpii3d"): {"mpjpe": 93.9, "pa_mpjpe": 61.5, "accel": 7.9},
    ("human36m", "table1_h36m_mpii3d"): {"mpjpe": 67.0, "pa_mpjpe": 46.3, "accel": 3.6},
}

# Features (N, F) of a track -> N frames in order: bodies, or only the joints that the truth has (N, J, 3).
Predictor = Callable[[NDArray[np.float32]], SMPLParams | NDArray[np.float64]]


@dataclass(frozen=True)
class Evaluation:
    """``metrics``: METRICS -> mm, frame-weighted. ``per_track``: one row of track_id, frames and metrics per track."""

    protocol: str
    metrics: dict[str, float]
    frames: int
    tracks: int
    skipped_tracks: list[str] = field(default_factory=list)  # shorter than a window, or without ground truth
    per_track: list[dict[str, Any]] = field(default_factory=list)


def evaluate_split(
    model: GLoT,
    store: FeatureStore,
    body: Body,
    *,
    protocol: str = "corrected",
    batch_size: int = 64,
    vertices: bool = False,
) -> Evaluation:
    """Errors of ``model`` on all tracks of ``store``. MPVPE only with ``vertices``: it costs more than all the rest.

    InputError where no track is as long as a window or has ground truth.
    """

    def predict(features: NDArray[np.float32]) -> SMPLParams:
        return predict_track(model, features, batch_size=batch_size)

    protocols = (protocol,)
    return evaluate_predictor(predict, store, body, frames=model.config.frames, protocols=protocols, vertices=vertices)[
        protocol
    ]


def evaluate_predictor(
    predict: Predictor,
    store: FeatureStore,
    body: Body,
    *,
    frames: int,
    protocols: Sequence[str] = PROTOCOLS,
    vertices: bool = True,
    what: str = "",
    true_bodies: Mapping[str, Body] | None = None,
) -> dict[str, Evaluation]:
    """The evaluation of any predictor under several protocols, predicting once; tracks below ``frames`` are skipped.

    The truth is of the same ``body`` as the prediction, or of the one among ``true_bodies`` that is called as the
    gender of a track's person.

    "corrected" and "official" differ in the order of each track's last predictions (glot.features.windows.prediction_order) and
    in whether an acceleration may be taken across a gap in time (official: yes, over the rows as they are).
    """
    for protocol in protocols:
        check_protocol(protocol)
    errors: dict[str, list[dict[str, Any]]] = {protocol: [] for protocol in protocols}
    skipped = []
    tracks = sorted(store.tracks)
    genders = genders_of(store) if true_bodies else {}
    for track in cli.progress(tracks, total=len(tracks), what=what) if what else tracks:
        truth = track_truth(store, track, (true_bodies or {}).get(genders.get(track.track_id, ""), body))
        if len(truth.rows) < frames or not truth.scored.any():
            skipped.append(track.track_id)
            continue
        answer = predict(store.features[truth.rows])
        for protocol, found in score(
            answer, truth, body, frames=frames, protocols=protocols, vertices=vertices
        ).items():
            errors[protocol].append({"track_id": track.track_id, **found})
    if len(skipped) == len(tracks):
        raise InputError(
            f"{store.folder}: none of its {len(tracks)} tracks has ground truth and the {frames} frames of a window; "
            "evaluate a longer or an annotated split"
        )
    return {protocol: _summary(protocol, found, skipped) for protocol, found in errors.items()}


def _summary(protocol: str, found: list[dict[str, Any]], skipped: list[str]) -> Evaluation:
    """Averages over all frames of all tracks, and per track; metres become mm."""

    def means(tracks: list[dict[str, Any]]) -> dict[str, float]:
        out = {}
        for name in METRICS:
            values = np.concatenate([track[name] for track in tracks if name in track] or [np.empty(0)])
            if len(values):
                out[name] = 1000 * float(values.mean())
        return out

    per_track = [
        {"track_id": track["track_id"], "frames": len(track["frame_index"]), **means([track])} for track in found
    ]
    frames = sum(row["frames"] for row in per_track)
    return Evaluation(protocol, means(found), frames, len(found), list(skipped), per_track)


def mean_pose_predictor(model: GLoT) -> Predictor:
    """Answers every frame with the mean pose, shape and camera that the model starts from, without looking."""
    mean = to_params(model.mean.cpu().view(1, 1, -1))

    def predict(features: NDArray[np.float32]) -> SMPLParams:
        return SMPLParams(*(values[0].expand(len(features), *values.shape[2:]) for values in mean))

    return predict


def genders_of(store: FeatureStore) -> dict[str, str]:
    """The gender that the dataset says of each track's person, by track_id."""
    found: dict[str, str] = {}
    for path in parts(store.folder, store.manifest):
        with open_parquet(path) as file:
            columns = file.read(columns=["track_id", "gender"]).to_pydict()
        found.update(zip(columns["track_id"], columns["gender"], strict=True))
    return found


def linear_predictor(folder: Path, body: Body) -> Predictor:
    """A linear map from each frame's features to its joints, learnt on the "train" split below ``folder``; its strength
    is chosen on "validation"."""

    def known(split: str) -> tuple[NDArray, NDArray]:
        if not (folder / split / "manifest.json").is_file():
            raise InputError(
                f"--probe learns on {folder / split}, which is not there; extract it, or leave --probe out"
            )
        store = FeatureStore.open(folder / split)
        rows, joints = [], []
        for track in store.tracks:
            truth = track_truth(store, track, body)
            rows.append(truth.rows[truth.scored])
            joints.append((truth.joints - truth.joints[:, list(truth.pelvis)].mean(1, keepdims=True))[truth.scored])
        if not sum(map(len, rows)):
            raise InputError(f"{folder / split}: --probe learns from ground truth, and no frame has any")
        return store.features[np.concatenate(rows)], np.concatenate(joints)

    return LinearProbe(known("train"), known("validation"))


def check_body(saved: Checkpoint, manifest: Manifest, body: Body) -> None:
    """Refuses to mix the open body with SMPL, in the features or in the model."""
    require_body(body, manifest.body, f"features {manifest.dataset}/{manifest.split}")
    require_body(body, saved.info["body"], "model")


def main(
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a checkpoint, e.g. runs/first/best; a published .pth.tar; or open.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(parser=location, help="Folder or URI of the feature sets: FEATURES/DATASET/SPLIT.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="Which dataset's features.")] = "3dpw",
    split: Annotated[str, typer.Option(help="Which split of it.")] = "test",
    protocol: Annotated[str, typer.Option(help="corrected, official, or both.")] = "both",
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Also score the same model before training.")] = False,
    gendered: Annotated[
        bool,
        typer.Option(
            "--gendered", help="Also score against SMPL_MALE and SMPL_FEMALE in --body, as a person's gender is."
        ),
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also score a linear map from each frame's features, learnt on train.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers here.")] = None,
    table: Annotated[Path | None, typer.Option(help="Write errors per track here (.csv or .parquet).")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows at once.")] = 64,
    cost: Annotated[
        bool, typer.Option("--cost", help="Only count parameters and multiply-accumulates (paper's Table 10).")
    ] = False,
) -> None:
    """Evaluate a checkpoint: MPJPE, PA-MPJPE, MPVPE (mm) and Accel (mm/frame^2) beside the mean pose and the paper.

    `corrected` is the honest protocol. `official` reproduces the released evaluation, which scores the last seven
    frames of every track in reversed order and lets accelerations span gaps in time: to compare with published numbers.

    Example: `python -m glot.evaluate --checkpoint runs/demo/train/best --features runs/demo/features`
    """
    if cost:
        show_cost(checkpoint)
        return
    for option, value in (("--checkpoint", checkpoint), ("--features", features)):
        if value is None:
            raise InputError(f"{option} is missing; the example below python -m glot.evaluate --help shows both")
    assert checkpoint is not None and features is not None
    protocols = PROTOCOLS if protocol == "both" else (protocol,)
    for name in protocols:
        check_protocol(name)
    if table is not None and table.suffix not in (".csv", ".parquet"):
        raise InputError(f"--table {table}: must end in .csv or .parquet")
    if gendered and (body is None or not body.is_dir()):
        raise InputError("--gendered needs --body FOLDER with SMPL_NEUTRAL, SMPL_MALE and SMPL_FEMALE")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    the_body = load_body(body).to(device)
    store = FeatureStore.open(features / dataset / split)
    saved = load_model_for(checkpoint, store.manifest)
    check_body(saved, store.manifest, the_body)
    model = saved.model.to(device)

    def rows_of(predict: Predictor, what: str, protocols: Sequence[str]) -> dict[str, Evaluation]:
        frames = model.config.frames
        return evaluate_predictor(predict, store, the_body, frames=frames, protocols=protocols, what=what)

    def with_model(net: GLoT) -> Predictor:
        return lambda rows: predict_track(net, rows, batch_size=batch_size)

    results = rows_of(with_model(model), "evaluating", protocols)
    if gendered:
        # 3DPW's shapes were fitted with gendered bodies; published numbers put them on the neutral one.
        bodies = {gender: load_body(body, gender=gender).to(device) for gender in ("male", "female")}
        results["gendered"] = evaluate_predictor(
            with_model(model),
            store,
            the_body,
            frames=model.config.frames,
            protocols=protocols[:1],
            what="against gendered bodies",
            true_bodies=bodies,
        )[protocols[0]]
    baselines = {"mean_pose": rows_of(mean_pose_predictor(model), "mean pose", protocols[:1])[protocols[0]]}
    if probe:
        linear = linear_predictor(features / dataset, the_body)
        baselines["linear_probe"] = rows_of(linear, "linear probe", protocols[:1])[protocols[0]]
    if untrained:
        torch.manual_seed(saved.recipe.seed)
        mean_pose, mean_shape, mean_cam = model.mean.cpu().split((144, 10, 3))
        fresh = GLoT(model.config, mean_pose=mean_pose, mean_shape=mean_shape, mean_cam=mean_cam).to(device)
        baselines["untrained"] = rows_of(with_model(fresh), "untrained model", protocols[:1])[protocols[0]]

    comparable = not store.manifest.body["open"] and not the_body.is_open and split == "test"
    paper = PAPER.get((dataset, saved.recipe.name)) or next((v for k, v in PAPER.items() if k[0] == dataset), None)
    _show(results, baselines, paper, comparable=comparable, title=f"{dataset}/{split}")
    first = results[protocols[0]]
    if json_file is not None:
        report = {
            **{
                name: {**result.metrics, "frames": result.frames, "per_track": result.per_track}
                for name, result in results.items()
            },
            **{name: result.metrics for name, result in baselines.items()},
            "frames": first.frames,
            "tracks": first.tracks,
            "skipped_tracks": first.skipped_tracks,
            "dataset": dataset,
            "split": split,
            "paper": paper,
            "comparable_with_paper": comparable,
            "checkpoint": {"folder": str(checkpoint), "recipe": saved.recipe.name, "step": saved.info.get("step")},
            "features": {"backbone": store.manifest.backbone, "body": store.manifest.body, "key": store.manifest.key},
        }
        _write(json_file, (json.dumps(report, indent=1) + "\n").encode())
    if table is not None:
        _write(table, _table_bytes(results, parquet=table.suffix == ".parquet"))


def show_cost(checkpoint: Path | None) -> None:
    """Prints what a checkpoint's model costs, or what the paper's does."""
    if checkpoint is None:
        zeros = torch.zeros(ESTIMATE)
        model = GLoT(ModelConfig(), mean_pose=zeros[:144], mean_shape=zeros[144:154], mean_cam=zeros[154:])
    else:
        model = load_model(checkpoint).model
    found, frames = cost_of(model), model.config.frames
    table = Table(title="what the model costs, backbone and body apart")
    table.add_column("")
    table.add_column("millions", justify="right")
    for name, count in found.parameters.items():
        table.add_row(f"parameters: {name}", f"{count / 1e6:.2f}")
    table.add_row("parameters", f"{found.total / 1e6:.2f}", style="bold")
    table.add_row(f"MACs of a window, all its {frames} frames", f"{found.window / 1e6:.1f}", style="bold")
    table.add_row("MACs of a frame in a long track", f"{found.sliding / 1e6:.1f}", style="bold")
    for name, macs in PAPER_MACS.items():
        table.add_row(f"MACs of a window, {name} in the paper's Table 10", f"{macs:.1f}", style="dim")
    Console().print(table)
    print("counted: matrix products, attention's included; not norms, activations, sums, backbone or body")


def _show(
    results: dict[str, Evaluation],
    baselines: dict[str, Evaluation],
    paper: dict[str, float] | None,
    *,
    comparable: bool,
    title: str,
) -> None:
    first = next(iter(results.values()))
    table = Table(title=f"{title}: {first.frames} frames of {first.tracks} tracks; mm, Accel mm/frame\u00b2")
    table.add_column("")
    for name in METRICS.values():
        table.add_column(name, justify="right")

    def row(name: str, metrics: dict[str, float], style: str = "") -> None:
        cells = [f"{metrics[key]:.1f}" if key in metrics else "-" for key in METRICS]
        table.add_row(name, *cells, style=style)

    names = {"mean_pose": "mean pose", "linear_probe": "linear probe, no video", "untrained": "before training"}
    names["gendered"] = f"{first.protocol}, truth with gendered bodies"
    for key, result in baselines.items():
        row(names[key], result.metrics)
    for key, result in results.items():
        row(f"this checkpoint, {names.get(key, key)}", result.metrics, "bold")
    if paper:
        dataset = title.split("/")[0]
        note = "the paper, official" if comparable else f"the paper on {dataset}, not comparable"
        row(note, paper, "dim")
    Console().print(table)
    if first.skipped_tracks:
        some = ", ".join(first.skipped_tracks[:5]) + (", ..." if len(first.skipped_tracks) > 5 else "")
        print(f"tracks skipped, shorter than a window or without ground truth: {len(first.skipped_tracks)} ({some})")


def _table_bytes(results: dict[str, Evaluation], *, parquet: bool) -> bytes:
    """One row per protocol and track: protocol, track_id, frames and every metric in mm."""
    names = ["protocol", "track_id", "frames", *METRICS]
    rows = [{"protocol": name, **row} for name, result in results.items() for row in result.per_track]
    if parquet:
        binary = io.BytesIO()
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), binary)
        return binary.getvalue()
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
