"""Several checkpoints (RenderSpec) in; their bodies of one track side by side out: .png, .mp4, and errors (.json)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glot.location import write_json
from glot.models.temporal_model import TemporalModel
from glot.pictures.model_comparison import (
    FrameErrors,
    ModelBodies,
    ModelComparison,
    compare_models,
    film,
    moments,
    sheet,
)
from glot.pictures.rendering import choose_track, model_for, open_features, row_of, writable, write_both
from glot.pictures.spec import RenderSpec
from glot.pictures.track_pictures import TrackRenderer
from glot.scoring.track_errors import score

WITHIN_RUN = ("best", "last")  # the checkpoints of every run


@dataclass(frozen=True)
class RenderedModels:
    """What ``render_models`` drew."""

    track: str
    why: str  # the reason why this track was chosen
    means: list[tuple[str, FrameErrors | None]]  # each model's caption and mean errors
    files: list[Path]


def render_models(spec: RenderSpec) -> RenderedModels:
    """Draws one track's bodies by each of ``spec.checkpoints`` and writes them to ``spec.out``.

    Without ``spec.track``, the track is the one of the first model's median error. InputError for missing or wrong
    files, and for a checkpoint of another backbone or kind of body than the features.
    """
    store, body = open_features(spec)
    models = [model_for(path, store, body) for path in spec.checkpoints]
    names = spec.captions or captions([model.title for model in models], spec.checkpoints)
    subject = choose_track(spec, store, body, models[0])
    drawn = [subject.renderer()]
    drawn += [drawn[0].with_bodies(subject.bodies(model)) for model in models[1:]]
    comparison = compare_models([bodies_of(*each) for each in zip(names, drawn, models, strict=True)])
    rows = rows_to_show(comparison, spec.columns)
    path = subject.path.with_name(f"{subject.path.name}_models")
    with writable(spec.out):
        picture = sheet(comparison, rows, title=f"{subject.title}: {len(models)} models")
        files = write_both(path, picture, film(comparison), comparison.first, spec)
        files.append(path.with_name(f"{path.name}.json"))
        about = {"dataset": spec.dataset, "split": spec.split, "track": subject.track.track_id, "why": subject.why}
        write_json(files[-1], about | numbers(comparison, models, spec.checkpoints, rows), indent=None)
    means = [(model.name, model.mean) for model in comparison.models]
    return RenderedModels(subject.track.track_id, subject.why, means, files)


def captions(titles: Sequence[str], checkpoints: Sequence[Path]) -> tuple[str, ...]:
    """The models' titles; where models share one, with the part of the checkpoint's path that tells them apart."""
    shared = [path for title, path in zip(titles, checkpoints, strict=True) if titles.count(title) > 1]
    named = dict(zip(shared, telling_parts(shared), strict=True))
    pairs = zip(titles, checkpoints, strict=True)
    return tuple(f"{title} ({named[path]})" if path in named else title for title, path in pairs)


def telling_parts(paths: Sequence[Path]) -> list[str]:
    """What tells different paths apart: runs/a/best, runs/b/best, open -> a, b, open; x/a, x/y/a -> x/a, y/a."""
    tails = [_tail(path, [other for other in paths if other != path]) for path in paths]
    first = [tail[0] for tail in tails]
    return [tail[0] if first.count(tail[0]) == 1 else "/".join(tail) for tail in tails]


def _tail(path: Path, others: Sequence[Path]) -> tuple[str, ...]:
    """The last parts of a path, as few as no other path ends with. Every run has a folder ``best``: never it alone."""
    counts = range(2 if path.name in WITHIN_RUN else 1, len(path.parts) + 1)
    found = (count for count in counts if all(other.parts[-count:] != path.parts[-count:] for other in others))
    return path.parts[-next(found, len(path.parts)) :]


def bodies_of(name: str, drawn: TrackRenderer, model: TemporalModel) -> ModelBodies:
    """A model's bodies with their errors, as the evaluation counts them."""
    if not drawn.truth.scored.any():
        return ModelBodies(name, drawn, {})
    scored = score(drawn.params, drawn.truth, drawn.body, frames=model.config.frames)["corrected"]
    pairs = zip((1000 * scored["mpjpe"]).tolist(), (1000 * scored["pa_mpjpe"]).tolist(), strict=True)
    errors = {frame: FrameErrors(*pair) for frame, pair in zip(scored["frame_index"].tolist(), pairs, strict=True)}
    return ModelBodies(name, drawn, errors)


def rows_to_show(comparison: ModelComparison, columns: int | tuple[int, ...]) -> list[int]:
    """Rows of the frames that ``--moments`` names, or of so many moments where the models differ most."""
    if isinstance(columns, int):
        return moments(comparison, columns)
    return [row_of(frame, comparison.first, option="--moments") for frame in columns]


def numbers(
    comparison: ModelComparison, models: Sequence[TemporalModel], checkpoints: Sequence[Path], rows: list[int]
) -> dict[str, Any]:
    """The report: lists with a value for each frame, mm; null where a frame has no ground truth."""
    frames = comparison.first.frame_index.tolist()
    entries = []
    for bodies, model, path in zip(comparison.models, models, checkpoints, strict=True):
        found = [bodies.errors.get(frame) for frame in frames]
        entry: dict[str, Any] = {"name": bodies.name, "model": model.title, "checkpoint": str(path)}
        if bodies.mean:
            entry["mean"] = {field: round(value, 2) for field, value in bodies.mean._asdict().items()}
        for field in FrameErrors._fields:
            entry[field] = [None if errors is None else round(getattr(errors, field), 2) for errors in found]
        entries.append(entry)
    return {
        "unit": "mm",
        "moments": [frames[row] for row in rows],
        "frame_index": frames,
        "models_differ_by": np.round(1000 * comparison.apart.astype(float), 2).tolist(),
        "models": entries,
    }
