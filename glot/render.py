"""A checkpoint, features and their pictures in; pictures (.png) and videos (.mp4) of one person's bodies out."""

import json
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import av
import cv2
import numpy as np
import typer

from glot import cli
from glot.body import Body, load_body
from glot.clip import ORANGE, PAPER, Clip, Picture, images_of, write
from glot.errors import InputError
from glot.evaluate import Predictor, check_body, evaluate_predictor
from glot.location import location
from glot.predict import load_model_for, predict_track
from glot.scoring import score, track_truth
from glot.store import FeatureStore, Track

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


def write_video(path: Path, frames: Iterator[Picture], *, fps: float, total: int) -> None:
    """H.264 in an .mp4 that players and browsers open; the file appears when it is whole."""
    if "libx264" not in av.codecs_available:
        raise InputError(
            "this build of PyAV has no H.264 encoder; install its wheel (pip install --force-reinstall av)"
        )
    rate = Fraction(fps).limit_denominator(1001) if np.isfinite(fps) and fps > 0 else Fraction(25)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
            stream.pix_fmt = "yuv420p"
            for picture in cli.progress(frames, total=total, what="drawing"):
                if stream.width != picture.shape[1]:  # the first one says how large the video is
                    stream.height, stream.width = picture.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
) -> None:
    """Draw the predicted bodies of one track over its pictures: a contact strip (.png) and a video (.mp4).

    The video shows input, prediction and side view. The strip adds the ground truth, whose camera is fitted to the 2D
    joints. Only what the model says places its bodies: no depth, no optimisation.

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
    if track:
        chosen, why = store.track(track), "chosen"
    else:
        chosen, why = median_track(lambda rows: predict_track(model, rows), store, the_body, model.config.frames)
    truth = track_truth(store, chosen, the_body)
    if len(truth.rows) == 0:
        raise InputError(f"track {chosen.track_id}: none of its frames is valid; choose another with --track")
    params = predict_track(model, store.features[truth.rows])
    images = images_of(store, chosen)
    clip = Clip(store, the_body, params, truth, [images[row - chosen.start] for row in truth.rows], root)
    errors = {}
    if truth.scored.any():
        scored = score(params, truth, the_body, frames=model.config.frames)["corrected"]
        errors = dict(zip(scored["frame_index"].tolist(), (1000 * scored["pa_mpjpe"]).tolist(), strict=True))
    mean = f", PA-MPJPE {np.mean(list(errors.values())):.1f} mm" if errors else ""
    name = re.sub(r"[^\w.-]+", "_", chosen.track_id)
    png, mp4 = out / f"{name}.png", out / f"{name}.mp4"
    try:
        out.mkdir(parents=True, exist_ok=True)
        sheet = strip(clip, title=f"{dataset}/{split}, track {chosen.track_id} ({why}), {len(clip)} frames{mean}")
        replace_file(png, cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())
        total = min(len(clip), max_frames)
        frames = (frame for _, frame in zip(range(total), film(clip, errors=errors), strict=False))
        write_video(mp4, frames, fps=clip.fps, total=total)
        report = {"track": chosen.track_id, "why": why, "frames": len(clip), "png": png.name, "mp4": mp4.name}
        replace_file(out / "render.json", (json.dumps(report, indent=1) + "\n").encode())
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error}); choose another place") from None
    print(f"{chosen.track_id} ({why}){mean}\n{png}\n{mp4}")


def median_track(predict: Predictor, store: FeatureStore, body: Body, frames: int) -> tuple[Track, str]:
    """The track of median PA-MPJPE (the longest, in a set without ground truth), and why it was taken."""
    if not (store.has_smpl.any() or store.has_3d.any()):
        return max(store.tracks, key=lambda track: track.stop - track.start), "the longest"
    result = evaluate_predictor(predict, store, body, frames=frames, protocols=("corrected",), vertices=False)
    ranked = sorted(result["corrected"].per_track, key=lambda row: row["pa_mpjpe"])
    return store.track(ranked[(len(ranked) - 1) // 2]["track_id"]), f"median of {len(ranked)}"


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def command() -> None:
    """Entry point of ``glot-render``."""
    cli.run(main)


if __name__ == "__main__":
    command()
