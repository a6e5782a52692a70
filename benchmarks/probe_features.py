"""How well extracted features describe poses, alone and side by side: a linear probe from one frame to 24 joints.

It reads feature sets of the same frames that were made with different backbones: FOLDER/ROOT/NAME/3dpw/SPLIT, where
ROOT stands for a dataset's folder and NAME for a backbone. Frames are matched by track and frame index.

Prints a table and writes benchmarks/out/probe_features.json: ``{"probes": {FEATURES: {"size", "tests": {ROOT:
{"pa_mm", "mpjpe_mm"}}}}, "frames": {"train": {ROOT: {"sequences", "tracks", "rows"}}, …}, "ms_per_crop":
{BACKBONE: …}}``.
"""

import re
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from figures import OUT, write_figures
from numpy.typing import NDArray
from probe import errors, smpl_joints

from glot import cli
from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.moments import ROWS_AT_ONCE
from glot.features.schema import is_feature_set
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.scoring.linear_probe import LinearProbe

DATASET = "3dpw"
PART = re.compile(r"(?P<name>[\w.-]+)(\[(?P<first>\d+):(?P<stop>\d+)\])?(/(?P<parts>\d+))?")
CROPS, REPEATS = 8, 5  # of a measurement of time


class Part(NamedTuple):
    """Some features of a backbone: columns [first, stop), and the mean of ``parts`` equal parts of them."""

    name: str
    first: int
    stop: int | None
    parts: int

    def of(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """features (n, F) -> (n, (stop - first) / parts). InputError where there are no such columns."""
        stop = features.shape[1] if self.stop is None else self.stop
        if not self.first < stop <= features.shape[1] or (stop - self.first) % self.parts:
            raise InputError(f"--features {self.name}: has {features.shape[1]} numbers; cannot take {self}")
        chosen = features[:, self.first : stop]
        return chosen.reshape(len(chosen), self.parts, -1).mean(1)


def parse(text: str) -> list[Part]:
    """ "full[0:312]+dinov2/4" -> what stands side by side. InputError for other words."""
    found = [PART.fullmatch(word) for word in text.split("+")]
    parts = [
        Part(m["name"], int(m["first"] or 0), int(m["stop"]) if m["stop"] else None, int(m["parts"] or 1))
        for m in found
        if m is not None
    ]
    if len(parts) < len(found) or any(part.parts < 1 for part in parts):
        raise InputError(f"--features {text}: give names like full, full[0:312] or full/4, joined by +")
    return parts


class Frames(NamedTuple):
    """The frames of a split that all backbones have: row numbers (N,) in the store of each, and their joints."""

    stores: dict[str, FeatureStore]
    rows: dict[str, NDArray[np.int64]]
    joints: NDArray[np.float64]  # (N, 24, 3) metres from the pelvis, in the camera frame
    tracks: list[str]  # (N,)

    def blocks(self, parts: Sequence[Part]) -> Iterator[tuple[NDArray, NDArray]]:
        """Features (n, F) of the parts side by side, and joints (n, 24, 3)."""
        for start in range(0, len(self.joints), ROWS_AT_ONCE):
            block = slice(start, start + ROWS_AT_ONCE)
            features = [part.of(self.stores[part.name].features_of(self.rows[part.name][block])) for part in parts]
            yield np.concatenate(features, axis=1), self.joints[block]

    def counts(self) -> dict[str, int]:
        """How many there are. A track is called SEQUENCE_PERSON."""
        names = set(self.tracks)
        return {
            "sequences": len({name.rpartition("_")[0] for name in names}),
            "tracks": len(names),
            "rows": len(self.joints),
        }


def read_frames(folder: Path, names: Sequence[str], split: str, body: Body, *, every: int = 1) -> Frames:
    """The frames with SMPL parameters of FOLDER/NAME/3dpw/SPLIT that all backbones ``names`` have.

    Of these, the frames whose index can be divided by ``every``. InputError where there are none.
    """
    stores = {name: FeatureStore.open(folder / name / DATASET / split) for name in names}
    places = {name: _places(store, every) for name, store in stores.items()}
    common = set.intersection(*(set(found) for found in places.values()))
    keys = [key for key in places[names[0]] if key in common]
    if not keys:
        raise InputError(f"{folder}: {', '.join(names)} have no frame of {split} in common")
    rows = {name: np.array([found[key] for key in keys], np.int64) for name, found in places.items()}
    first, chosen = stores[names[0]], rows[names[0]]
    joints = smpl_joints(first.pose[chosen], first.betas[chosen], body)
    return Frames(stores, rows, joints, [track for track, _ in keys])


def _places(store: FeatureStore, every: int) -> dict[tuple[str, int], int]:
    """{(track, frame index): row} of the valid rows with SMPL parameters, of every so many frames."""
    good = store.valid & store.has_smpl & (store.frame_index % every == 0)
    return {
        (track.track_id, int(store.frame_index[row])): row
        for track in store.tracks
        for row in range(track.start, track.stop)
        if good[row]
    }


def probe(text: str, learn: dict[str, list[Frames]], tests: dict[str, Frames]) -> dict[str, object]:
    """Size of the features and errors on each test of a probe learnt on ``learn`` {"train", "validation"}."""
    parts = parse(text)
    train, validation = ((block for frames in learn[split] for block in frames.blocks(parts)) for split in learn)
    linear = LinearProbe(train, validation)
    found = {
        root: errors(np.concatenate([linear(x) for x, _ in frames.blocks(parts)]), frames.joints)
        for root, frames in tests.items()
    }
    return {"size": len(linear.weights), "tests": found}


def crop_time(backbone: Backbone) -> float:
    """CPU milliseconds per crop on one thread: the median of a few repeats, so that other processes count little."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    extract, size = Extractor(backbone), backbone.crop_rule.size
    crops = np.random.default_rng(0).integers(0, 256, (CROPS, size, size, 3), np.uint8)
    seconds = []
    for _ in range(REPEATS + 1):  # the first one also reads weights
        began = time.process_time()
        extract(crops)
        seconds.append(time.process_time() - began)
    torch.set_num_threads(threads)
    return round(statistics.median(seconds[1:]) / CROPS * 1000, 1)


def backbone_of(text: str) -> Backbone:
    """NAME, or NAME=WEIGHTS."""
    name, _, weights = text.partition("=")
    return load_backbone(name, Path(weights) if weights else None)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of feature sets, FOLDER/ROOT/NAME/3dpw/SPLIT.")],
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="What to probe: NAME; NAME[312:1464], some columns of it; NAME/4, the mean of its four quarters; "
            "several, joined by +. May be repeated."
        ),
    ] = None,
    learn: Annotated[
        list[str] | None, typer.Option(help="A ROOT whose train and validation splits to learn on. May be repeated.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="A ROOT whose test split to test on. May be repeated.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Use every n-th frame only.")] = 1,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Also time this backbone, NAME or NAME=WEIGHTS. May be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file for the figures.")] = OUT / "probe_features.json",
) -> None:
    """Learn a linear map from features to 24 joints on the train splits of some roots, and measure it on test splits.

    The regularisation is chosen on the validation splits. The mean pose is always included, for comparison.

    `python benchmarks/probe_features.py features --features full --features full+dinov2 --learn cmu --test cmu`
    """
    if not (features and learn and test):
        raise InputError("give --features, --learn and --test, each at least once")
    names = sorted({part.name for text in features for part in parse(text)})
    body = load_body()
    learnt = {
        split: {
            root: read_frames(folder / root, names, split, body, every=every)
            for root in learn
            if is_feature_set(folder / root / names[0] / DATASET / split)
        }
        for split in ("train", "validation")
    }
    if empty := [split for split, found in learnt.items() if not found]:
        raise InputError(f"{folder}: {' and '.join(learn)} have no {empty[0]} split for {names[0]}; extract it")
    tests = {root: read_frames(folder / root, names, "test", body, every=every) for root in test}
    mean = np.concatenate([frames.joints for frames in learnt["train"].values()]).mean(0)
    rows: dict[str, dict[str, object]] = {
        "mean pose": {
            "size": 0,
            "tests": {root: errors(np.broadcast_to(mean, f.joints.shape), f.joints) for root, f in tests.items()},
        }
    }
    for text in cli.progress(features, total=len(features), what="probes"):
        rows[text] = probe(text, {split: list(found.values()) for split, found in learnt.items()}, tests)
    counts = {
        split: {root: frames.counts() for root, frames in found.items()}
        for split, found in {**learnt, "test": tests}.items()
    }
    times = {text: crop_time(backbone_of(text)) for text in backbone or []}
    _print(rows, list(tests), counts, times)
    write_figures(out, {"probes": rows, "frames": counts, "ms_per_crop": times}, show=False)


def _print(rows: dict[str, dict], tests: list[str], counts: dict[str, dict], times: dict[str, float]) -> None:
    print("linear probe, mm on 24 joints: PA-MPJPE MPJPE")
    print(f"{'':60} {'size':>6}" + "".join(f" {root[:17]:>17}" for root in tests))
    for text, row in rows.items():
        found = [f" {row['tests'][root]['pa_mm']:8.1f} {row['tests'][root]['mpjpe_mm']:8.1f}" for root in tests]
        print(f"{text:60} {row['size']:6}" + "".join(found))
    for split, roots in counts.items():
        print(f"{split}: " + "; ".join(f"{root} {values}" for root, values in roots.items()))
    for text, milliseconds in times.items():
        print(f"{text}: {milliseconds} ms of one core per crop")


if __name__ == "__main__":
    cli.run(main)
