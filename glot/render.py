"""A checkpoint, features and their pictures in; pictures (.png) and videos (.mp4) of one person's bodies out."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from glot import cli
from glot.errors import InputError
from glot.features.store import FeatureStore, Track
from glot.human.body import Body, load_body
from glot.location import location, write_whole
from glot.models.glot import GLoT
from glot.models.inference import load_model_for, predict_track
from glot.pictures import attention_figure, comparison
from glot.pictures.drawing import PAPER, Picture, write, write_video
from glot.pictures.track_pictures import ORANGE, Clip, images_of
from glot.scoring.evaluation import Predictor, check_body, evaluate_predictor
from glot.scoring.track_errors import score, track_truth

MOMENTS = 6
PANEL = 256  # px, of the strip
VIDEO_HEIGHT = 400  # px


def strip(clip: Clip, *, title: str) -> Picture:
    """The contact strip: six moments from left to right; the crop, the bodies over it, and the side view below it."""
    true = clip.true_cam is not None
    rows = ["input", "prediction", *(["ground truth"] if true else []), "side view"]
    left, top, gap, foot = 110, 34, 4, 22
    width = left + MOMENTS * (PANEL + gap)
    sheet = np.full((top + len(rows) * (PANEL + gap) + foot, width, 3), PAPER, np.uint8)
    write(sheet, title, (8, 22), scale=0.55)
    for r, name in enumerate(rows):
        write(sheet, name, (8, top + r * (PANEL + gap) + PANEL // 2))
    if true or clip.truth.scored.any():
        note_y = top + (len(rows) - 1) * (PANEL + gap) + PANEL // 2 + 20
        write(sheet, "orange: truth", (8, note_y), colour=ORANGE, scale=0.4)
    for column, i in enumerate(np.linspace(0, len(clip) - 1, MOMENTS).round().astype(int).tolist()):
        plain, to_panel = clip.crop(i, PANEL)
        panels = [plain, clip.overlay(i, plain, to_panel)]
        if true:
            panels.append(clip.overlay(i, plain, to_panel, true=True))
        panels.append(clip.side_view(i, PANEL))
        x = left + column * (PANEL + gap)
        for r, panel in enumerate(panels):
            y = top + r * (PANEL + gap)
            sheet[y : y + PANEL, x : x + PANEL] = panel
        write(sheet, f"frame {clip.frame_index[i]}", (x + 4, sheet.shape[0] - 7), scale=0.45)
    return sheet


def film(clip: Clip, *, errors: dict[int, float]) -> Iterator[Picture]:
    """Frames of the video: input, prediction over it, side view. ``errors``: frame index -> PA-MPJPE in mm."""
    height, width = clip.pictures.size
    scale = VIDEO_HEIGHT / height
    panel_width = round(width * scale) // 2 * 2
    to_panel = np.array([[panel_width / width, 0, 0], [0, scale, 0]])
    for i in range(len(clip)):
        plain = cv2.resize(clip.pictures[i], (panel_width, VIDEO_HEIGHT), interpolation=cv2.INTER_AREA)
        side = clip.side_view(i, VIDEO_HEIGHT)
        frame = np.concatenate([plain, clip.overlay(i, plain, to_panel), side], axis=1)  # type: ignore[arg-type]
        number = int(clip.frame_index[i])
        said = f"frame {number}" + (f"  PA-MPJPE {errors[number]:.0f} mm" if number in errors else "")
        write(frame, said, (2 * panel_width + 8, 20), scale=0.5)
        yield frame


def main(
    checkpoint: Annotated[Path, typer.Option(help="Folder of a checkpoint, e.g. runs/first/best.")],
    features: Annotated[
        Path, typer.Option(parser=location, help="Folder or URI of the feature sets: FEATURES/DATASET/SPLIT.")
    ],
    root: Annotated[Path, typer.Option(help="Folder of the pictures or videos the features were extracted from.")],
    out: Annotated[Path, typer.Option(help="Where TRACK.png and TRACK.mp4 go.")],
    dataset: Annotated[str, typer.Option(help="Which dataset's features.")] = "3dpw",
    split: Annotated[str, typer.Option(help="Which split of it.")] = "test",
    track: Annotated[str, typer.Option(help="Which track; the one of median PA-MPJPE when left out.")] = "",
    body: Annotated[Path | None, typer.Option(help="SMPL file or folder; the open body when left out.")] = None,
    max_frames: Annotated[int, typer.Option(min=1, help="Stop the video after so many frames.")] = 600,
    attention: Annotated[
        bool, typer.Option("--attention", help="Draw what the frames of the global branch look at instead.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Draw the bodies before and after the local branch's correction instead.")
    ] = False,
    frame: Annotated[
        int | None, typer.Option(help="The frame amid the window of --attention; the track's middle when left out.")
    ] = None,
) -> None:
    """Draw the predicted bodies of one track over its pictures: a contact strip (.png) and a video (.mp4).

    The video shows input, prediction and side view. The strip adds the ground truth, whose camera is fitted to the 2D
    joints. Only what the model says places its bodies: no depth, no optimisation.

    `--attention` writes TRACK_attention.png: for each layer of the global encoder and decoder which frame looks at
    which, mean of the heads, in one window and over all windows of the track; once with every frame visible and once
    with frames hidden as in training. TRACK_attention.npz has the numbers, head by head. `--compare` writes
    TRACK_compare.png and .mp4: the global branch's body beside the corrected one, coloured by how far each part moved.

    Example: `python -m glot.render --checkpoint runs/demo/train/best --features runs/demo/features
    --root runs/demo/data --out pictures`
    """
    if not root.is_dir():
        raise InputError(f"--root {root}: there is no such folder; it is where the dataset's pictures are")
    store = FeatureStore.open(features / dataset / split)
    saved = load_model_for(checkpoint, store.manifest)
    the_body = load_body(body)
    check_body(saved, store.manifest, the_body)
    model = saved.model
    if compare and model.correction is None:
        raise InputError("--compare: this model has the global branch only (model.modules=gmm), nothing corrects it")
    if track:
        chosen, why = store.track(track), "chosen"
    else:
        chosen, why = median_track(lambda rows: predict_track(model, rows), store, the_body, model.config.frames)
    truth = track_truth(store, chosen, the_body)
    if len(truth.rows) == 0:
        raise InputError(f"track {chosen.track_id}: none of its frames is valid; choose another with --track")
    all_images = images_of(store, chosen)
    images = [all_images[row - chosen.start] for row in truth.rows]
    rows = store.features[truth.rows]
    clip = Clip(store, the_body, predict_track(model, rows), truth, images, root)
    errors = errors_of(clip, model)
    mean = f", PA-MPJPE {mean_of(errors)} mm" if errors else ""
    title = f"{dataset}/{split}, track {chosen.track_id} ({why}), {len(clip)} frames"
    name = re.sub(r"[^\w.-]+", "_", chosen.track_id)
    total = min(len(clip), max_frames)
    written: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        if attention:
            written += draw_attention(out / f"{name}_attention", clip, model, rows, frame=frame, title=title)
        if compare:
            before = Clip(store, the_body, predict_track(model, rows, local=False), truth, images, root)
            change = f", PA-MPJPE {mean_of(errors_of(before, model))} and {mean_of(errors)} mm" if errors else ""
            both = comparison.compare(before, clip)
            picture = comparison.sheet(both, title=f"{title}: global and corrected body{change}")
            written += write_both(out / f"{name}_compare", picture, comparison.film(both), fps=clip.fps, total=total)
        if not attention and not compare:
            picture = strip(clip, title=title + mean)
            written += write_both(out / name, picture, film(clip, errors=errors), fps=clip.fps, total=total)
            report = {
                "track": chosen.track_id,
                "why": why,
                "frames": len(clip),
                "png": f"{name}.png",
                "mp4": f"{name}.mp4",
            }
            write_whole(out / "render.json", (json.dumps(report, indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error}); choose another place") from None
    print("\n".join([f"{chosen.track_id} ({why}){mean}", *map(str, written)]))


def errors_of(clip: Clip, model: GLoT) -> dict[int, float]:
    """Frame index -> PA-MPJPE in mm, of the frames that have a ground truth."""
    if not clip.truth.scored.any():
        return {}
    scored = score(clip.params, clip.truth, clip.body, frames=model.config.frames)["corrected"]
    return dict(zip(scored["frame_index"].tolist(), (1000 * scored["pa_mpjpe"]).tolist(), strict=True))


def mean_of(errors: dict[int, float]) -> str:
    return f"{np.mean(list(errors.values())):.1f}"


def draw_attention(
    path: Path, clip: Clip, model: GLoT, features: NDArray[np.float32], *, frame: int | None, title: str
) -> list[Path]:
    """Writes ``path``.png and .npz of the window around ``frame``."""
    row = len(clip) // 2
    if frame is not None:
        found = np.flatnonzero(clip.frame_index == frame)
        if len(found) == 0:
            first, last = clip.frame_index[[0, -1]]
            raise InputError(f"--frame {frame}: not among this track's frames, {first} to {last}")
        row = int(found[0])
    maps = attention_figure.track_maps(model, features, row)
    numbers = io.BytesIO()
    np.savez_compressed(numbers, frame_index=clip.frame_index[maps["rows"]], **maps)  # type: ignore[arg-type]
    heads = model.config.heads
    png = attention_figure.picture(maps, clip, title=f"{title}: attention of the global branch, mean of {heads} heads")
    written = [path.with_name(path.name + suffix) for suffix in (".png", ".npz")]
    for file, content in zip(written, (png, numbers.getvalue()), strict=True):
        write_whole(file, content)
    return written


def write_both(path: Path, picture: Picture, frames: Iterator[Picture], *, fps: float, total: int) -> list[Path]:
    """Writes ``path``.png and the first ``total`` frames as ``path``.mp4."""
    png, mp4 = (path.with_name(path.name + suffix) for suffix in (".png", ".mp4"))
    write_whole(png, cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    wanted = (frame for _, frame in zip(range(total), frames, strict=False))
    write_video(mp4, cli.progress(wanted, total=total, what="drawing"), fps=fps)
    return [png, mp4]


def median_track(predict: Predictor, store: FeatureStore, body: Body, frames: int) -> tuple[Track, str]:
    """The track of median PA-MPJPE (the longest, in a set without ground truth), and why it was taken."""
    if not (store.has_smpl.any() or store.has_3d.any()):
        return max(store.tracks, key=lambda track: track.stop - track.start), "the longest"
    result = evaluate_predictor(predict, store, body, frames=frames, protocols=("corrected",), vertices=False)
    ranked = sorted(result["corrected"].per_track, key=lambda row: row["pa_mpjpe"])
    return store.track(ranked[(len(ranked) - 1) // 2]["track_id"]), f"median of {len(ranked)}"


def command() -> None:
    """Entry point of ``glot-render``."""
    cli.run(main)


if __name__ == "__main__":
    command()
