"""A model and a clip in, a picture of what the frames of the global branch look at out, as in the paper's Figure 6.

T frames of a window, H heads. Maps are (T, T): a row is the frame that looks, a column the frame it looks at.
"""

import io
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from glot.features.windows import evaluation_windows
from glot.models.attention_maps import global_maps, hidden_frames
from glot.models.glot import GLoT
from glot.pictures.drawing import Picture
from glot.pictures.track_pictures import ORANGE, Clip

THUMB = 96  # px
HIDDEN = tuple(channel / 255 for channel in ORANGE)
KINDS = ("visible", "hidden")  # every frame visible; some of them hidden, as in training


def track_maps(model: GLoT, features: NDArray[np.float32], row: int) -> dict[str, NDArray]:
    """Maps of a track's features (N, F): for the window around ``row``, and their mean over all windows of the track.

    "window/visible/encoder 1" (H, T, T), "mean/hidden/decoder 1", ...; "rows" (T,) of that window; "hidden" (T,), which
    of its frames were hidden (the same places in every window), and "windows", how many the mean is of: those that lie
    within the track, or all when it is shorter than one. A model without masking has nothing "hidden".
    """
    frames = model.config.frames
    every = evaluation_windows(len(features), frames)
    within = every[frames // 2 : len(features) - frames + frames // 2 + 1]
    counted = within if len(within) else every
    masks: dict[str, NDArray[np.bool_] | None] = {"visible": None}
    if model.motion.kept < frames:
        masks["hidden"] = hidden_frames(model)
    out: dict[str, NDArray] = {"rows": every[row], "windows": np.array(len(counted))}
    device = model.mean.device
    for kind, mask in masks.items():
        if mask is not None:
            out["hidden"] = mask
        chosen = torch.from_numpy(features[every[row]][None]).to(device)
        out |= {f"window/{kind}/{name}": found[0] for name, found in global_maps(model, chosen, mask).items()}
        sums: dict[str, Any] = {}
        for start in range(0, len(counted), 64):
            some = torch.from_numpy(features[counted[start : start + 64]]).to(device)
            for name, found in global_maps(model, some, mask).items():
                sums[name] = sums.get(name, 0) + found.sum(axis=0, dtype=np.float64)
        out |= {f"mean/{kind}/{name}": (total / len(counted)).astype(np.float32) for name, total in sums.items()}
    return out


def picture(maps: dict[str, NDArray], clip: Clip, *, title: str) -> bytes:
    """The .png: thumbnails of the window, below them its maps (mean of the heads) and the mean maps of the track."""
    kinds = [kind for kind in KINDS if any(f"/{kind}/" in name for name in maps)]
    layers = [name.removeprefix("window/visible/") for name in maps if name.startswith("window/visible/")]
    rows, hidden = maps["rows"], maps.get("hidden", np.zeros(len(maps["rows"]), bool))
    figure = Figure(figsize=(2.9 * len(layers) * len(kinds) + 0.8, 7.1), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    blocks = figure.subfigures(1, len(kinds), wspace=0.03, squeeze=False)[0]
    thumbs = [clip.crop(int(i), THUMB)[0] for i in rows]
    for block, kind in zip(blocks, kinds, strict=True):
        gone = hidden if kind == "hidden" else np.zeros_like(hidden)
        grid = block.add_gridspec(3, len(layers), height_ratios=[0.34, 1, 1])
        _film(block.add_subplot(grid[0, :]), thumbs, gone)
        block.suptitle(
            "every frame visible, as in evaluation"
            if kind == "visible"
            else f"{gone.sum()} of {len(gone)} frames hidden (orange), as in training",
            fontsize=11,
        )
        means = {
            (part, layer): maps[f"{part}/{kind}/{layer}"].mean(axis=0)
            for part in ("window", "mean")
            for layer in layers
        }
        for y, part in enumerate(("window", "mean")):
            said = "this window" if part == "window" else f"mean of {maps['windows']} windows"
            top = max(np.nanmax(means[part, layer]) for layer in layers)
            axes: list[Axes] = []
            for x, layer in enumerate(layers):
                axis = block.add_subplot(grid[1 + y, x])
                shown = _heat(axis, means[part, layer], top, gone)
                axis.set_title(layer, fontsize=10)
                numbers = clip.frame_index[rows] if part == "window" else np.arange(len(rows)) - len(rows) // 2
                axis.set_xticks(range(0, len(rows), 3), numbers[::3], fontsize=7)
                axis.set_yticks(range(0, len(rows), 3), numbers[::3] if x == 0 else [], fontsize=7)
                if x == 0:
                    axis.set_ylabel(f"{said}\nframe that looks", fontsize=9)
                if y == 1:
                    axis.set_xlabel("looks at (from the middle)", fontsize=8)
                axes.append(axis)
            block.colorbar(shown, ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _film(axis: Axes, thumbs: list[Picture], gone: NDArray[np.bool_]) -> None:
    """The frames of the window side by side, hidden ones darkened and framed."""
    strip = np.concatenate(thumbs, axis=1).astype(np.float32)
    strip[:, np.repeat(gone, THUMB)] *= 0.3
    axis.imshow(strip.astype(np.uint8), aspect="equal")
    for place in np.flatnonzero(gone).tolist():
        axis.add_patch(Rectangle((place * THUMB, 0), THUMB, THUMB - 1, fill=False, edgecolor=HIDDEN, linewidth=2))
    axis.set_axis_off()


def _heat(axis: Axes, values: NDArray, top: float, gone: NDArray[np.bool_]) -> Any:
    """One heat map from 0 to ``top``; what the layer never saw is grey, hidden frames have orange bars at the edges."""
    shown = axis.imshow(np.ma.masked_invalid(values), vmin=0, vmax=top, cmap="viridis", interpolation="nearest")
    axis.set_facecolor("0.85")
    for place in np.flatnonzero(gone).tolist():
        bar: dict[str, Any] = {"color": HIDDEN, "linewidth": 3, "solid_capstyle": "butt", "clip_on": False}
        axis.plot([place - 0.45, place + 0.45], [-0.75, -0.75], **bar)
        axis.plot([-0.75, -0.75], [place - 0.45, place + 0.45], **bar)
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_ylim(len(values) - 0.5, -0.5)
    return shown
