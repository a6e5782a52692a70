"""A model and the features of a track in; a figure of the global branch's attention out, as in the paper's Figure 6.

T frames of a window, H heads. Maps are (T, T): a row is the frame that attends (the query), a column the frame that it
attends to (the key). Hidden frames are the frames that the model masks in training.
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
from glot.pictures.track_pictures import ORANGE, TrackRenderer

THUMB = 96  # px, width and height of a thumbnail
HIDDEN = tuple(channel / 255 for channel in ORANGE)  # colour of the marks of hidden frames
KINDS = ("visible", "hidden")  # every frame visible; some frames hidden, as in training


def track_maps(model: GLoT, features: NDArray[np.float32], row: int) -> dict[str, NDArray]:
    """Maps of a track's features (N, F): of the window around ``row``, and their mean over the windows of the track.

    Keys of the maps (H, T, T) are "window/visible/encoder 1", "mean/hidden/decoder 1", ... Besides them:
    "rows" (T,) of that window; "hidden" (T,), which of its frames were hidden (the same places in every window);
    "windows", the number of windows in the mean. The mean is over the windows that lie within the track, or over all
    windows if the track is shorter than a window. The maps of a model without masking have no "hidden".
    """
    frames = model.config.frames
    windows = evaluation_windows(len(features), frames)
    within = windows[frames // 2 : len(features) - frames + frames // 2 + 1]
    counted = within if len(within) else windows
    masks: dict[str, NDArray[np.bool_] | None] = {"visible": None}
    if model.motion.kept < frames:
        masks["hidden"] = hidden_frames(model)
    out: dict[str, NDArray] = {"rows": windows[row], "windows": np.array(len(counted))}
    device = model.mean.device
    for kind, mask in masks.items():
        if mask is not None:
            out["hidden"] = mask
        chosen = torch.from_numpy(features[windows[row]][None]).to(device)
        out |= {f"window/{kind}/{name}": maps[0] for name, maps in global_maps(model, chosen, mask).items()}
        sums: dict[str, Any] = {}
        for start in range(0, len(counted), 64):
            batch = torch.from_numpy(features[counted[start : start + 64]]).to(device)
            for name, maps in global_maps(model, batch, mask).items():
                sums[name] = sums.get(name, 0) + maps.sum(axis=0, dtype=np.float64)
        out |= {f"mean/{kind}/{name}": (total / len(counted)).astype(np.float32) for name, total in sums.items()}
    return out


def picture(maps: dict[str, NDArray], track: TrackRenderer, *, title: str) -> bytes:
    """The .png: thumbnails of the window, below them its maps (mean of the heads) and the mean maps of the track.

    ``maps`` is the result of ``track_maps``.
    """
    kinds = [kind for kind in KINDS if any(f"/{kind}/" in name for name in maps)]
    layers = [name.removeprefix("window/visible/") for name in maps if name.startswith("window/visible/")]
    hidden = maps.get("hidden", np.zeros(len(maps["rows"]), bool))
    figure = Figure(figsize=(2.9 * len(layers) * len(kinds) + 0.8, 7.1), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=12)
    blocks = figure.subfigures(1, len(kinds), wspace=0.03, squeeze=False)[0]
    thumbs = [track.crop(int(i), THUMB)[0] for i in maps["rows"]]
    for block, kind in zip(blocks, kinds, strict=True):
        marked = hidden if kind == "hidden" else np.zeros_like(hidden)
        grid = block.add_gridspec(3, len(layers), height_ratios=[0.34, 1, 1])
        _filmstrip(block.add_subplot(grid[0, :]), thumbs, marked)
        block.suptitle(
            "every frame visible, as in evaluation"
            if kind == "visible"
            else f"{marked.sum()} of {len(marked)} frames hidden (orange), as in training",
            fontsize=11,
        )
        frames, offsets = track.frame_index[maps["rows"]], np.arange(len(marked)) - len(marked) // 2
        lines = [("window", "this window", frames), ("mean", f"mean of {maps['windows']} windows", offsets)]
        for line, (scope, label, ticks) in enumerate(lines, 1):
            means = {layer: maps[f"{scope}/{kind}/{layer}"].mean(axis=0) for layer in layers}
            axes = [block.add_subplot(grid[line, x]) for x in range(len(layers))]
            _heat_maps(axes, means, marked, ticks=ticks, label=label)
            if scope == "mean":
                for axis in axes:
                    axis.set_xlabel("attended frame (from the middle)", fontsize=8)
            block.colorbar(axes[-1].images[0], ax=axes, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _filmstrip(axis: Axes, thumbs: list[Picture], hidden: NDArray[np.bool_]) -> None:
    """The frames of the window side by side; hidden frames are darkened and have a border."""
    strip = np.concatenate(thumbs, axis=1).astype(np.float32)
    strip[:, np.repeat(hidden, THUMB)] *= 0.3
    axis.imshow(strip.astype(np.uint8), aspect="equal")
    for place in np.flatnonzero(hidden).tolist():
        axis.add_patch(Rectangle((place * THUMB, 0), THUMB, THUMB - 1, fill=False, edgecolor=HIDDEN, linewidth=2))
    axis.set_axis_off()


def _heat_maps(
    axes: list[Axes], maps: dict[str, NDArray], hidden: NDArray[np.bool_], *, ticks: NDArray, label: str
) -> None:
    """One map (T, T) for each layer, with one colour scale. ``ticks`` (T,) are the numbers of the frames."""
    top = max(np.nanmax(values) for values in maps.values())
    places = range(0, len(ticks), 3)
    for axis, (layer, values) in zip(axes, maps.items(), strict=True):
        _heat_map(axis, values, top, hidden)
        axis.set_title(layer, fontsize=10)
        axis.set_xticks(places, ticks[::3], fontsize=7)
        axis.set_yticks(places, ticks[::3] if axis is axes[0] else [], fontsize=7)
    axes[0].set_ylabel(f"{label}\nattending frame", fontsize=9)


def _heat_map(axis: Axes, values: NDArray, top: float, hidden: NDArray[np.bool_]) -> None:
    """A map (T, T) in colours from 0 to ``top``. Frames that the layer never saw are grey; hidden ones are marked."""
    axis.imshow(np.ma.masked_invalid(values), vmin=0, vmax=top, cmap="viridis", interpolation="nearest")
    axis.set_facecolor("0.85")
    for place in np.flatnonzero(hidden).tolist():
        bar: dict[str, Any] = {"color": HIDDEN, "linewidth": 3, "solid_capstyle": "butt", "clip_on": False}
        axis.plot([place - 0.45, place + 0.45], [-0.75, -0.75], **bar)
        axis.plot([-0.75, -0.75], [place - 0.45, place + 0.45], **bar)
    axis.set_xlim(-0.5, len(values) - 0.5)
    axis.set_ylim(len(values) - 0.5, -0.5)
