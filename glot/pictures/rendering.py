"""A RenderSpec in; pictures (.png), videos (.mp4) and numbers (.npz) of one track's predicted bodies out."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.store import FeatureStore, Track
from glot.home import body_for
from glot.human.body import Body, load_body, require_body
from glot.location import write_json, write_whole
from glot.models.glot import GLoT
from glot.models.inference import load_model_for, predict_track, print_notes
from glot.models.prediction.track_predictors import track_predictor
from glot.models.smpl_params import SMPLParams
from glot.models.temporal_model import TemporalModel
from glot.pictures import attention_figure, comparison, track_strip
from glot.pictures.drawing import Picture, write_video
from glot.pictures.spec import RenderSpec
from glot.pictures.track_pictures import TrackRenderer, images_of
from glot.scoring.evaluation import Predictor, evaluate_predictor
from glot.scoring.track_errors import Truth, score, track_truth


@dataclass(frozen=True)
class Rendered:
    """What ``render`` drew."""

    track: str
    why: str  # the reason why this track was chosen
    error: str  # its mean PA-MPJPE in mm, e.g. "41.3"; "" without ground truth
    files: list[Path]


@dataclass(frozen=True)
class Subject:
    """The track to draw, and the model that predicts its bodies."""

    spec: RenderSpec
    store: FeatureStore
    body: Body
    model: TemporalModel
    track: Track
    why: str  # the reason why this track was chosen
    truth: Truth

    @property
    def title(self) -> str:
        track, spec = self.track.track_id, self.spec
        return f"{spec.dataset}/{spec.split}, track {track} ({self.why}), {len(self.truth.rows)} frames"

    @property
    def path(self) -> Path:
        """OUT/TRACK, which the names of the files begin with."""
        return self.spec.out / re.sub(r"[^\w.-]+", "_", self.track.track_id)

    @property
    def features(self) -> NDArray[np.float32]:
        """(N, F) of the frames that are drawn."""
        return self.store.features_of(self.truth.rows)

    def bodies(self, model: TemporalModel, *, corrected: bool = True) -> SMPLParams:
        """The predicted bodies (N) of a model, or of its global branch alone. Few features are read at a time."""
        predictor = track_predictor(model, local=corrected)
        pieces = predictor.batches(lambda rows: self.store.features_of(self.truth.rows[rows]), len(self.truth.rows))
        return SMPLParams(*map(torch.cat, zip(*pieces, strict=True)))

    def renderer(self, *, corrected: bool = True) -> TrackRenderer:
        """A renderer for the bodies of the whole model, or of its global branch alone."""
        images = images_of(self.store, self.track)
        shown = [images[row - self.track.start] for row in self.truth.rows]
        params = self.bodies(self.model, corrected=corrected)
        return TrackRenderer(self.store, self.body, params, self.truth, shown, self.spec.picture_root)


def render(spec: RenderSpec) -> Rendered:
    """Draws what ``spec`` asks for and writes it to ``spec.out``. InputError for missing or wrong files."""
    store, body = open_features(spec)
    model = model_for(spec.checkpoint, store, body)
    check_branches(spec, model)
    subject = choose_track(spec, store, body, model)
    drawn = subject.renderer()
    errors = errors_of(drawn, subject.model)
    error = mean_of(errors) if errors else ""
    title, path, files = subject.title, subject.path, list[Path]()
    with writable(spec.out):
        if spec.attention:
            files += write_attention(path, subject, drawn, title=title)
        if spec.compare:
            files += write_comparison(path, subject, drawn, title=title, error=error)
        if not spec.attention and not spec.compare:
            files += write_strip(path, subject, drawn, title=title, errors=errors)
    return Rendered(subject.track.track_id, subject.why, error, files)


@contextmanager
def writable(out: Path) -> Iterator[None]:
    """Makes the folder ``out``. InputError where it, or what is written in the block, cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as failure:
        reason = failure.strerror or failure
        raise InputError(f"--out {out}: cannot be written ({reason}); choose another place") from None


def open_features(spec: RenderSpec) -> tuple[FeatureStore, Body]:
    """The features that ``spec`` names, and the body they were made with; InputError for a body of another kind."""
    store = FeatureStore.open(spec.features / spec.dataset / spec.split)
    body = load_body(body_for(spec.body, store.manifest.body))
    require_body(body, store.manifest.body, f"features {spec.dataset}/{spec.split}")
    return store, body


def model_for(checkpoint: Path, store: FeatureStore, body: Body) -> TemporalModel:
    """The model of a checkpoint; InputError unless it belongs to the backbone and the kind of body of the features."""
    try:
        saved = load_model_for(checkpoint, store.manifest)
    except InputError as error:
        raise (error if str(checkpoint) in str(error) else InputError(f"{checkpoint}: {error}")) from None
    require_body(body, saved.info["body"], f"model {checkpoint}")
    print_notes(saved)
    return saved.model


def choose_track(spec: RenderSpec, store: FeatureStore, body: Body, model: TemporalModel) -> Subject:
    """The track of ``spec``, or the one of the model's median error. InputError for a track that cannot be drawn."""
    if spec.track:
        track, why = store.track(spec.track), "chosen"
    else:
        track, why = median_track(lambda rows: predict_track(model, rows), store, body, model.config.frames)
    truth = track_truth(store, track, body)
    if len(truth.rows) == 0:
        raise InputError(f"track {track.track_id}: none of its frames is valid; choose another with --track")
    return Subject(spec, store, body, model, track, why, truth)


def check_branches(spec: RenderSpec, model: TemporalModel) -> None:
    """InputError where ``--attention`` or ``--compare`` asks for a part of GLoT that the model does not have."""
    for option, wanted in (("--attention", spec.attention), ("--compare", spec.compare)):
        if wanted and not isinstance(model, GLoT):
            raise InputError(f"{option}: draws the branches of GLoT, and this model is {model.title}")
    if spec.compare and isinstance(model, GLoT) and model.correction is None:
        raise InputError("--compare: the model has the global branch only (model.modules=gmm), so it has no correction")


def median_track(predict: Predictor, store: FeatureStore, body: Body, frames: int) -> tuple[Track, str]:
    """The track of median PA-MPJPE (the longest, in a set without ground truth), and why it was chosen."""
    if not (store.has_smpl.any() or store.has_3d.any()):
        return max(store.tracks, key=lambda track: track.stop - track.start), "the longest"
    result = evaluate_predictor(predict, store, body, frames=frames, protocols=("corrected",), vertices=False)
    ranked = sorted(result["corrected"].per_track, key=lambda row: row["pa_mpjpe"])
    return store.track(ranked[(len(ranked) - 1) // 2]["track_id"]), f"median of {len(ranked)}"


def errors_of(drawn: TrackRenderer, model: TemporalModel) -> dict[int, float]:
    """Frame index -> PA-MPJPE in mm, for the frames that have a ground truth."""
    if not drawn.truth.scored.any():
        return {}
    scored = score(drawn.params, drawn.truth, drawn.body, frames=model.config.frames)["corrected"]
    return dict(zip(scored["frame_index"].tolist(), (1000 * scored["pa_mpjpe"]).tolist(), strict=True))


def mean_of(errors: dict[int, float]) -> str:
    return f"{np.mean(list(errors.values())):.1f}"


def write_strip(
    path: Path, subject: Subject, drawn: TrackRenderer, *, title: str, errors: dict[int, float]
) -> list[Path]:
    """The contact strip as ``path``.png, the video as ``path``.mp4, and render.json, which names both."""
    mean = f", PA-MPJPE {mean_of(errors)} mm" if errors else ""
    picture = track_strip.strip(drawn, title=title + mean)
    files = write_both(path, picture, track_strip.film(drawn, errors=errors), drawn, subject.spec)
    report = {
        "track": subject.track.track_id,
        "why": subject.why,
        "frames": len(drawn),
        "png": files[0].name,
        "mp4": files[1].name,
    }
    write_json(path.with_name("render.json"), report)
    return files


def write_comparison(path: Path, subject: Subject, drawn: TrackRenderer, *, title: str, error: str) -> list[Path]:
    """``path``_compare.png and .mp4: the global branch's bodies beside the corrected ones."""
    before = subject.renderer(corrected=False)
    change = f", PA-MPJPE {mean_of(errors_of(before, subject.model))} and {error} mm" if error else ""
    both = comparison.compare(before, drawn)
    picture = comparison.sheet(both, title=f"{title}: global and corrected body{change}")
    return write_both(path.with_name(f"{path.name}_compare"), picture, comparison.film(both), drawn, subject.spec)


def write_attention(path: Path, subject: Subject, drawn: TrackRenderer, *, title: str) -> list[Path]:
    """``path``_attention.png and .npz: the attention maps of the window around ``spec.frame`` and their means."""
    model, frame = subject.model, subject.spec.frame
    assert isinstance(model, GLoT)
    row = len(drawn) // 2 if frame is None else row_of(frame, drawn, option="--frame")
    maps = attention_figure.track_maps(model, subject.features, row)
    numbers = io.BytesIO()
    np.savez_compressed(numbers, frame_index=drawn.frame_index[maps["rows"]], **maps)  # type: ignore[arg-type]
    heads = model.config.heads
    png = attention_figure.picture(maps, drawn, title=f"{title}: attention of the global branch, mean of {heads} heads")
    files = [path.with_name(f"{path.name}_attention{suffix}") for suffix in (".png", ".npz")]
    for file, content in zip(files, (png, numbers.getvalue()), strict=True):
        write_whole(file, content)
    return files


def row_of(frame: int, drawn: TrackRenderer, *, option: str) -> int:
    """The row of a frame that an option names; InputError where the track does not have it."""
    found = np.flatnonzero(drawn.frame_index == frame)
    if len(found) == 0:
        first, last = drawn.frame_index[[0, -1]]
        raise InputError(f"{option} {frame}: not among this track's frames, {first} to {last}")
    return int(found[0])


def write_both(
    path: Path, picture: Picture, frames: Iterator[Picture], drawn: TrackRenderer, spec: RenderSpec
) -> list[Path]:
    """Writes ``path``.png, and the first ``spec.max_frames`` frames as ``path``.mp4."""
    png, mp4 = (path.with_name(path.name + suffix) for suffix in (".png", ".mp4"))
    write_whole(png, cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    total = min(len(drawn), spec.max_frames)
    wanted = (frame for _, frame in zip(range(total), frames, strict=False))
    write_video(mp4, cli.progress(wanted, total=total, what="drawing"), fps=drawn.fps)
    return [png, mp4]
