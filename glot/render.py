"""A checkpoint, features and their pictures in; a contact strip (.png) and a video (.mp4) of one person's bodies out.

N frames of a track, V vertices. Bodies are drawn over the full picture with the crop's camera carried over to it.
"""

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
import pyarrow.compute as pc
import torch
import typer
from numpy.typing import NDArray

from glot import cli
from glot.body import Body, load_body
from glot.camera import CROP_SIZE, FOCAL_LENGTH, full_image_translation
from glot.crop import crop_matrix, keypoints_to_crop
from glot.errors import InputError
from glot.evaluate import Predictor, check_body, evaluate_predictor
from glot.inference import load_model_for, predict_track
from glot.joints import COMMON14, COMMON14_BONES
from glot.location import location, open_parquet
from glot.metrics import HIPS
from glot.model import SMPLParams
from glot.scene import Scene
from glot.schema import parts
from glot.scoring import Truth, score, track_truth
from glot.store import FeatureStore, Track
from glot.windows import usual_step

Picture = NDArray[np.uint8]  # (H, W, 3) RGB

PREDICTED, TRUE = (0.45, 0.62, 0.90), (0.80, 0.72, 0.55)  # colours of bodies, RGB 0-1
INK, PAPER = (40, 40, 40), (245, 245, 245)
ORANGE = (225, 110, 20)
OPACITY = 0.9
MOMENTS = 6
BLOCK = 16  # frames
PANEL = 256  # px, of the strip
VIDEO_HEIGHT = 400  # px
SIDE_VIEW_METRES = 2.3  # what a side view spans
# Scenes have y up and z towards the viewer, bodies are in the camera's frame: y down, z away.
TO_SCENE = np.diag([1.0, -1.0, -1.0, 1.0])
SIDEWAYS = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # as seen from the camera's right; y stays


class Clip:
    """Everything that is drawn of one track, frame by frame."""

    def __init__(
        self, store: FeatureStore, body: Body, params: SMPLParams, truth: Truth, images: list[str], root: Path
    ) -> None:
        rows = truth.rows
        self.body, self.params, self.truth = body, params, truth
        self.frame_index = truth.frame_index
        self.fps = float(store.fps[rows[0]]) / usual_step(self.frame_index)  # of the rows
        self.boxes, self.scales = store.bbox[rows], store.crop_scale[rows]
        self.pictures = Pictures(root, images)
        self._blocks: dict[bool, tuple[int, NDArray, NDArray]] = {}
        self.true_cam: torch.Tensor | None = None
        if truth.smpl is not None:
            with torch.no_grad():
                joints = body.joints(truth.smpl.rotmats, truth.smpl.betas).numpy()
            keypoints = keypoints_to_crop(store.keypoints2d[rows], self.boxes, self.scales)
            self.true_cam = torch.from_numpy(fit_cam(joints, keypoints)).float()

    def __len__(self) -> int:
        return len(self.frame_index)

    def posed(self, i: int, *, true: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vertices (V, 3) and the 14 joints (14, 3) of frame i: metres, about the body's own origin, camera frame."""
        number, vertices, joints = self._blocks.get(true, (-1, np.empty(0), np.empty(0)))
        if number != i // BLOCK:  # bodies are posed some frames at a time, which is several times faster
            params = self.truth.smpl if true else self.params
            assert params is not None
            rows = slice(i // BLOCK * BLOCK, (i // BLOCK + 1) * BLOCK)
            with torch.no_grad():
                output = self.body(params.rotmats[rows], params.betas[rows])
            vertices, joints = output.vertices.numpy(), output.joints14.numpy()
            self._blocks[true] = (i // BLOCK, vertices, joints)
        return vertices[i % BLOCK], joints[i % BLOCK]

    def overlay(self, i: int, panel: Picture, to_panel: NDArray[np.float64], *, true: bool = False) -> Picture:
        """The body of frame i over ``panel``, a view of the picture; ``to_panel`` (2, 3) maps its px to the panel's."""
        cams = self.true_cam if true else self.params.cam
        assert cams is not None
        height, width = self.pictures.size
        side = float(self.boxes[i, 2] * self.scales[i])
        focal = FOCAL_LENGTH * side / CROP_SIZE  # the crop's own, so that the body looks the same in the full picture
        box = torch.tensor([[self.boxes[i, 0], self.boxes[i, 1], side]])
        place = full_image_translation(cams[i : i + 1], box, width=width, height=height, focal=focal)[0].numpy()
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return self._draw(
            self.posed(i, true=true)[0] + place,
            np.concatenate([to_panel, [[0, 0, 1]]]) @ intrinsics,
            panel,
            TRUE if true else PREDICTED,
        )

    def side_view(self, i: int, size: int) -> Picture:
        """The predicted body of frame i from the camera's right; the true joints as orange bones, pelvis on pelvis."""
        vertices, predicted = self.posed(i)
        pelvis, depth = predicted[list(HIPS)].mean(axis=0), 60.0  # metres: far enough to look flat
        focal = size / SIDE_VIEW_METRES * depth
        intrinsics = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
        place = np.array([0, -0.05, depth])
        paper = np.full((size, size, 3), PAPER, np.uint8)
        panel = self._draw((vertices - pelvis) @ SIDEWAYS.T + place, intrinsics, paper, PREDICTED)
        if len(self.truth.joints[i]) == len(COMMON14) and self.truth.scored[i]:
            joints = self.truth.joints[i] - self.truth.joints[i][list(HIPS)].mean(axis=0)
            pixels = (joints @ SIDEWAYS.T + place) @ intrinsics.T
            pixels = np.round(pixels[:, :2] / pixels[:, 2:]).astype(int)
            for a, b in COMMON14_BONES:
                start, end = (tuple(pixels[COMMON14.index(name)].tolist()) for name in (a, b))
                cv2.line(panel, start, end, ORANGE, 2, cv2.LINE_AA)
        return panel

    def _draw(
        self, vertices: NDArray, intrinsics: NDArray, background: Picture, colour: tuple[float, float, float]
    ) -> Picture:
        """The body over the background; only the part of the picture that it covers is rendered."""
        pixels = vertices @ intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        size = np.array([background.shape[1], background.shape[0]])
        low = np.clip(np.floor(pixels.min(axis=0)) - 1, 0, size).astype(int)
        high = np.clip(np.ceil(pixels.max(axis=0)) + 2, 0, size).astype(int)
        out = background.copy()
        if (high <= low).any():
            return out  # outside the picture
        part = out[low[1] : high[1], low[0] : high[0]]
        scene = Scene(part.shape[1], part.shape[0], supersample=2)
        scene.set_background(part)
        shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
        scene.set_camera(shift @ intrinsics, TO_SCENE)
        scene.set_mesh("body", vertices * np.diag(TO_SCENE)[:3], self.body.faces, colours=np.array(colour))
        part[...] = cv2.addWeighted(scene.render(), OPACITY, part.copy(), 1 - OPACITY, 0)
        return out


def fit_cam(joints: NDArray, keypoints: NDArray) -> NDArray[np.float64]:
    """Weak-perspective cameras (N, 3: s, tx, ty) that bring joints (N, J, 3) m onto keypoints (N, J, 3) in crop units.

    Least squares of s (x + tx), s (y + ty) over the joints with confidence; for ground truth, which has no such camera.
    A frame with fewer than two known joints takes the camera of the nearest frame that has them.
    """
    cams = np.full((len(joints), 3), np.nan)
    for i, (xyz, known) in enumerate(zip(joints, keypoints, strict=True)):
        seen = known[:, 2] > 0
        if seen.sum() < 2:
            continue
        xy, target, count = xyz[seen, :2].astype(np.float64), known[seen, :2], int(seen.sum())
        system = np.zeros((2 * count, 3))
        system[:count, 0], system[:count, 1] = xy[:, 0], 1
        system[count:, 0], system[count:, 2] = xy[:, 1], 1
        s, a, b = np.linalg.lstsq(system, target.T.reshape(-1), rcond=None)[0]
        if s > 0:
            cams[i] = s, a / s, b / s
    fitted = np.flatnonzero(np.isfinite(cams[:, 0]))
    if len(fitted) == 0:
        raise InputError("no frame of this track has two known 2D joints, so the true body cannot be placed")
    nearest = np.abs(np.arange(len(cams))[:, None] - fitted).argmin(axis=1)
    return cams[fitted[nearest]]


class Pictures:
    """The pictures of a track, in order: files below ``root``, or frames of a video (``video#frame``)."""

    def __init__(self, root: Path, images: list[str]) -> None:
        if not root.is_dir():
            raise InputError(f"--root {root}: there is no such folder; it is where the dataset's pictures are")
        self.root, self.images = root, images
        self._video: tuple[str, int, Iterator[av.VideoFrame]] | None = None  # open file, next frame, decoder
        self.size = self[0].shape[:2]  # (H, W)

    def __getitem__(self, i: int) -> Picture:
        name, separator, frame = self.images[i].rpartition("#")
        if separator and frame.isdigit():
            return self._frame_of_video(name, int(frame))
        path = self.root / self.images[i]
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
        if picture is None:
            raise InputError(f"{path}: no readable picture; --root must be the folder the features were extracted from")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)

    def _frame_of_video(self, name: str, number: int) -> Picture:
        if self._video is None or self._video[0] != name or self._video[1] > number:
            path = self.root / name
            try:
                self._video = (name, 0, av.open(str(path)).decode(video=0))
            except (OSError, av.FFmpegError, IndexError) as error:
                raise InputError(f"{path}: no readable video ({error}); --root must be where it lies") from None
        _, following, decoder = self._video
        for frame in decoder:
            following += 1
            if following > number:
                self._video = (name, following, decoder)
                return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        raise InputError(f"{self.root / name}: ends before frame {number}; the features were made from another video")


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
        to_panel = crop_matrix(clip.boxes[i], float(clip.scales[i]), size=PANEL)
        plain = np.asarray(cv2.warpAffine(clip.pictures[i], to_panel, (PANEL, PANEL)), np.uint8)
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


def write(picture: Picture, text: str, at: tuple[int, int], *, colour: tuple = INK, scale: float = 0.45) -> None:
    """Puts a line of text into the picture, its baseline starting ``at`` (x, y)."""
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def images_of(store: FeatureStore, track: Track) -> list[str]:
    """The ``image`` column of a track's rows."""
    found: list[str] = []
    for path in parts(store.folder, store.manifest):
        with open_parquet(path) as file:
            table = file.read(columns=["image", "track_id"])
        found += table.filter(pc.equal(table["track_id"], track.track_id))["image"].to_pylist()
    return found


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
