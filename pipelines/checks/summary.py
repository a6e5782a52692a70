"""The rows of a feature set in, one table after the other; counts and a page about them out."""

from array import array
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glot.features.layout import TrackOrder, runs
from glot.features.schema import Manifest
from glot.features.windows import training_windows, usual_step
from glot.human.crop import keypoints_to_crop
from glot.human.joints import SPIN49
from pipelines.checks.published import compare, decoder_counts, sequence_of
from pipelines.decoders.dataset_facts import WINDOW

SHOWN_REASONS = 4  # for skipped frames


class Summary:
    """Counts of all rows. Also checks that the rows of a track are together in each part and in time order."""

    def __init__(self) -> None:
        self.frames: dict[str, array[int]] = {}  # frame indices of each track
        self.order = TrackOrder()
        self.valid: Counter[str] = Counter()  # valid rows of each track
        self.counts: Counter[str] = Counter()
        self.genders: Counter[str] = Counter()
        self.fps: set[float] = set()
        self.scales: set[float] = set()
        self.sides: list[NDArray[np.float32]] = []
        self.seen = np.zeros(len(SPIN49), np.int64)  # rows in which each 2D joint is seen

    def start_part(self) -> None:
        """The next table is the first of a part."""
        self.order.start_part()

    def add(self, table: pa.Table) -> Iterator[str]:
        """Counts the rows of a table; yields what is wrong with their order."""
        yield from self._add_frames(table)
        columns = {name: numbers(table[name]) for name in ("bbox", "keypoints2d", "joints3d_valid", "crop_scale")}
        for name in ("has_3d", "has_smpl"):
            self.counts[name] += int(numbers(table[name]).sum())
        self.genders.update(table["gender"].to_pylist())
        self.fps.update(np.unique(numbers(table["fps"])).tolist())
        self.scales.update(np.unique(columns["crop_scale"]).tolist())
        self.sides.append(columns["bbox"][:, 2].astype(np.float32))
        self.counts["joints3d"] += int(columns["joints3d_valid"].sum())
        keypoints = columns["keypoints2d"].reshape(len(table), -1, 3)
        seen = keypoints[..., 2] > 0
        self.seen += seen.sum(0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # broken boxes are reported by the rules
            inside = (np.abs(keypoints_to_crop(keypoints, columns["bbox"], columns["crop_scale"][:, 0])) <= 1)[..., :2]
        self.counts["outside crop"] += int((seen & ~inside.all(-1)).sum())
        self.counts["rows without 2D"] += int((~seen.any(1)).sum())
        self.counts["confidences between"] += int(((keypoints[..., 2] > 0) & (keypoints[..., 2] < 1)).sum())

    def _add_frames(self, table: pa.Table) -> Iterator[str]:
        ids, frames, valid = (table[name].combine_chunks() for name in ("track_id", "frame_index", "valid"))
        start = 0
        for run, problem in runs(ids, frames):
            yield from filter(None, (problem, self.order.add(run)))
            mine = slice(start, start + run.rows)
            self.frames.setdefault(run.track_id, array("i")).frombytes(frames[mine].to_numpy().tobytes())
            self.valid[run.track_id] += valid[mine].true_count
            start += run.rows

    def totals(self, manifest: Manifest) -> dict[str, int]:
        """The counts that are compared with published figures."""
        return {
            "sequences": len({sequence_of(track, manifest.dataset) for track in self.frames}),
            "tracks": len(self.frames),
            "rows": sum(map(len, self.frames.values())),
            "valid rows": self.valid.total(),
            "evaluated rows": sum(rows for rows in self.valid.values() if rows >= WINDOW),
            "windows at every row": sum(len(frames) // WINDOW * WINDOW for frames in self.frames.values()),
        }

    def page(self, manifest: Manifest) -> list[str]:
        """The lines of the page: sections, each with a label before its first line."""
        sections = {
            "made with": self._made_with(manifest),
            "crops": self._crops(manifest),
            "tracks": self._tracks(),
            "2D joints": self._keypoints(),
            "3D labels": self._labels(),
            "decoded": [f"{name}: {count:,}" for name, count in sorted(decoder_counts(manifest).items()) if count],
            "skipped": _skipped(manifest),
            "published": compare(manifest, self.totals(manifest), set(self.frames)),
        }
        return [
            f"  {label if number == 0 else '':<11}{line}"
            for label, lines in sections.items()
            for number, line in enumerate(lines)
        ]

    def _made_with(self, manifest: Manifest) -> list[str]:
        backbone, body = manifest.backbone, manifest.body
        network = f"{backbone['name']} {backbone.get('weights', '?')} {backbone.get('hash', '?')}"
        return [
            f"{network}; body {body.get('name', '?')} {body.get('hash', '?')}",
            f"code {manifest.code_version or '?'}",
        ]

    def _crops(self, manifest: Manifest) -> list[str]:
        sides = np.concatenate(self.sides) if self.sides else np.zeros(1)
        scales = " and ".join(f"{scale:.4g}" for scale in sorted(self.scales))
        lines = [
            f"box sides {sides.min():.0f} to {sides.max():.0f} px, median {np.median(sides):.0f}; scale {scales}",
            f"preprocessing {manifest.crop.get('preprocessing', 'unknown')}",
        ]
        if manifest.crop.get("reference"):
            lines.append(f"as published: {manifest.crop['reference']}")
        if occluders := manifest.crop.get("occluders"):
            people = " with people" if occluders["people"] else ""
            lines.append(
                f"covered by {occluders['objects']} objects{people}, per {occluders['per']}, seed {occluders['seed']}"
            )
        return lines

    def _tracks(self) -> list[str]:
        lengths = [len(frames) for frames in self.frames.values()] or [0]
        short = [length for length in lengths if length < WINDOW]
        gaps = windows = 0
        for frames in self.frames.values():
            index = np.asarray(frames)
            gaps += int((np.diff(index) != usual_step(index)).sum())
            windows += len(training_windows([(0, len(index))], index, frames=WINDOW, stride=WINDOW))
        lines = [
            f"{min(lengths):,} to {max(lengths):,} rows, median {median(lengths):,.0f}; {gaps:,} gaps in time; "
            f"{' and '.join(f'{fps:.4g}' for fps in sorted(self.fps))} fps",
            f"{windows:,} training windows of {WINDOW} rows",
        ]
        if short:
            lines.append(f"{len(short):,} tracks ({sum(short):,} rows) are shorter than a window and give none")
        return lines

    def _keypoints(self) -> list[str]:
        rows, seen = max(sum(map(len, self.frames.values())), 1), int(self.seen.sum())
        never = int((self.seen == 0).sum())
        lines = [
            f"{seen / rows:.1f} of {len(SPIN49)} joints seen per row, {never} joints never seen; "
            f"{self.counts['outside crop'] / max(seen, 1):.1%} of the seen joints outside the crop"
        ]
        if between := self.counts["confidences between"]:
            lines.append(f"{between:,} confidences between 0 and 1")
        if empty := self.counts["rows without 2D"]:
            lines.append(f"{empty:,} rows have no 2D joint")
        return lines

    def _labels(self) -> list[str]:
        rows = max(sum(map(len, self.frames.values())), 1)
        genders = ", ".join(f"{gender} {count / rows:.0%}" for gender, count in sorted(self.genders.items()))
        return [
            f"3D joints in {self.counts['has_3d'] / rows:.1%} of rows, SMPL in {self.counts['has_smpl'] / rows:.1%}, "
            f"{self.counts['joints3d'] / rows:.1f} valid 3D joints per row",
            f"{self.valid.total() / rows:.1%} of rows valid; {genders}",
        ]


def _skipped(manifest: Manifest) -> list[str]:
    """Lines about what was skipped: how many frames, and the most frequent reasons, without the names in them."""
    if not manifest.skipped:
        return []
    frames = sum(entry["frames"] for entry in manifest.skipped)
    reasons = Counter(str(entry["reason"]).rpartition(": ")[2] for entry in manifest.skipped)
    lines = [f"{len(manifest.skipped):,} entries, {frames:,} frames; manifest.json names them"]
    lines += [f"{count:,} x {reason}" for reason, count in reasons.most_common(SHOWN_REASONS)]
    if len(reasons) > SHOWN_REASONS:
        lines.append(f"and {len(reasons) - SHOWN_REASONS} other reasons")
    return lines


def numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column as (N, D): the nested lists of each row flattened to D numbers."""
    joined = column.combine_chunks()
    rows = len(joined)
    while pa.types.is_fixed_size_list(joined.type):
        joined = joined.flatten()
    return joined.to_numpy(zero_copy_only=False).reshape(rows, -1)
