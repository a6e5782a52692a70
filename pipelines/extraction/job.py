"""A dataset's pictures and annotations in, a feature set out, as a Ray Data job (the contract is glot/features/schema.py).

The unit of work is a sequence; only its name travels. An actor decodes the annotations, reads every picture once for
all its people, crops, runs the frozen backbone and writes the unit's part: no picture enters the object store.
"""

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.backbones.names import PRECISIONS, check_backbone
from glot.features.schema import Manifest
from glot.human.body import Body, load_body
from glot.human.body_files import OPEN_BODY
from glot.location import location
from glot.people.spool import Spool
from glot.people.video import video_frame
from glot.training.ray_session import connect
from pipelines.decoders.altered_boxes import jittered
from pipelines.decoders.clips import PREPROCESSING, Clip, Decoder, Unit
from pipelines.decoders.frames import read_crops
from pipelines.decoders.human36m import HUMAN36M
from pipelines.decoders.insta_variety import INSTA_VARIETY
from pipelines.decoders.mpi_inf_3dhp import MPI_INF_3DHP
from pipelines.decoders.penn_action import PENN_ACTION
from pipelines.decoders.posetrack import POSETRACK
from pipelines.decoders.threedpw import THREEDPW
from pipelines.decoders.video import VIDEO, video_decoder
from pipelines.extraction.occlusion import Occlusion, load_occlusion
from pipelines.extraction.precision import hash_of, how_far_off, int8_network, sample_crops
from pipelines.extraction.reference import round_targets
from pipelines.extraction.ledger import Record, begin, finished, open_set, publish, write_part, write_record
from pipelines.extraction.tally import Display, Tally

DECODERS: dict[str, Decoder] = {
    "3dpw": THREEDPW,
    "human36m": HUMAN36M,
    "insta_variety": INSTA_VARIETY,
    "mpi_inf_3dhp": MPI_INF_3DHP,
    "penn_action": PENN_ACTION,
    "posetrack": POSETRACK,
    "video": VIDEO,
}
CPU_OF_A_WORKER = 0.9  # a worker keeps a core busy; all CPUs claimed whole, Ray Data can wait for ever without a word
REPORT_FRAMES = 8  # a worker reports after this many
PIECE_ROWS = 2048  # labels and features that are in memory at once as a part is written
MOST_TRIES = 3  # of a unit in one run, when its worker dies
SHOWN_SKIPS = 5


@dataclass(frozen=True)
class Job:
    """One split to extract, all paths absolute, as actors get it."""

    dataset: str
    split: str
    root: Path
    folder: Path
    backbone: str
    weights: Path | None
    body: Path | None
    batch_size: int
    preprocessing: str
    settings: dict[str, Any]
    tracks: Path | None = None
    run: str = ""  # names this run of the command
    network: Path | None = None  # the backbone in int8

    @property
    def what(self) -> str:
        return f"{self.dataset} {self.split}"


def main(
    dataset: Annotated[str, typer.Option(help=f"What the root holds: {', '.join(DECODERS)}.")],
    root: Annotated[
        Path, typer.Option(help="The dataset's folder; for 3dpw the one with imageFiles/, sequenceFiles/.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=location,
            help="Feature sets go to OUT/DATASET/SPLIT/: a folder, or a URI such as s3://bucket/features.",
        ),
    ],
    split: Annotated[str, typer.Option(help="train, validation, test, or all of them.")] = "all",
    backbone: Annotated[
        str, typer.Option(help="The network: resnet50, or blazepose, which knows real people and needs no GPU.")
    ] = "resnet50",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Of a resnet50: safetensors, a torchvision state dict, SPIN's checkpoint. Default: the open ones."
        ),
    ] = None,
    body: Annotated[
        Path | None,
        typer.Option(help="Body model for the 3D joints: SMPL's .pkl, .npz or their folder. Default: the open one."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Extraction actors; 0: one a CPU core, or one a GPU.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Crops in one forward pass.")] = 8,
    precision: Annotated[
        str,
        typer.Option(
            help="float32; faster and a little off, how much is said: bfloat16, on chips with instructions for it "
            "about twice as fast; int8, on CPUs three times and more."
        ),
    ] = "float32",
    allow_skips: Annotated[bool, typer.Option(help="Unreadable pictures and sequences are fine: exit with 0.")] = False,
    preprocessing: Annotated[
        str,
        typer.Option(
            help="corrected, or reference: with what is wrong or inconsistent in the published inputs (shifted boxes, "
            "crops of another scale than their 2D targets, float16 targets, ...), to compare with models made of them."
        ),
    ] = "corrected",
    occluders: Annotated[
        Path | None,
        typer.Option(
            help="Pascal VOC's folder (VOCdevkit/VOC2012): its objects are pasted over the crops, labels stay as they "
            "are. People are not, except with --preprocessing reference. Give such a set an --out of its own."
        ),
    ] = None,
    occluders_per: Annotated[
        str | None,
        typer.Option(
            help="frame: other objects in every frame, as published; track: they pass by along a track. Default: "
            "track, or frame with --preprocessing reference."
        ),
    ] = None,
    tracks: Annotated[
        Path | None,
        typer.Option(
            help="Of --dataset video: where people are, as JSON or in the MOT format; a file, or a folder with one for "
            "each video. Default: one person, who fills the picture."
        ),
    ] = None,
    jitter: Annotated[
        bool,
        typer.Option(
            "--jitter",
            help="Boxes that are off as a detector's are, to train on for videos. Give such a set an --out of its own.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of occluders and --jitter; the same seed gives the same crops.")] = 0,
) -> int:
    """Extracts per-frame features and labels from a video dataset, as a Ray Data job.

    **Example**: `python pipelines/extract_features.py --dataset 3dpw --root data/3dpw --split all --out features`

    Run it again after any interruption: it goes on where it was, and says so when there is nothing left to do. With
    RAY_ADDRESS set, or under `ray job submit`, it joins that cluster; otherwise it starts a local Ray. What cannot be
    read is skipped and named in manifest.json; the exit code is then 1, unless `--allow-skips`.

    **What a set was made with** is in its manifest. A folder that was begun otherwise is refused, half done or done:
    `--preprocessing reference`, `--occluders` and `--jitter` need an `--out` of their own.
    """
    if dataset not in DECODERS:
        raise InputError(f"--dataset {dataset}: not known; there is {', '.join(DECODERS)}")
    if tracks and dataset != "video":
        raise InputError(f"--tracks: goes with --dataset video; {dataset} says itself where people are")
    decoder = decoder_of(dataset, tracks and tracks.absolute())
    if split != "all" and split not in decoder.splits:
        raise InputError(f"--split {split}: {dataset} has {', '.join(decoder.splits)}; or say all")
    if preprocessing not in PREPROCESSING:
        raise InputError(f"--preprocessing {preprocessing}: there is {' and '.join(PREPROCESSING)}")
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: there is {', '.join(PRECISIONS)}")
    given = [path for path in (root, out, occluders, tracks) if path]
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not all(path.is_absolute() for path in given):
        raise InputError(
            "--root, --out, --occluders and --tracks must be absolute in a Ray job: it runs in a copy of your folder, "
            "which is thrown away"
        )
    root, out = root.absolute(), out.absolute()
    weights, body, tracks = (path and path.absolute() for path in (weights, body, tracks))
    splits = decoder.splits if split == "all" else (split,)
    units = {name: decoder.find(root, name) for name in splits}
    occlusion = load_occlusion(occluders, occluders_per, seed, preprocessing=preprocessing, split=split)
    if occlusion:
        say(f"occluders: {len(occlusion.objects)} objects of {occluders}, for every {occlusion.per}")
    loaded, network, model = load_backbone(backbone, weights), None, b""
    if precision != "float32":
        check_backbone(loaded.name, precision=precision)
        everything = [unit for name in splits for unit in units[name]]
        crops = sample_crops(decoder, root, everything, load_body(body))
        network = int8_network(loaded, crops, out) if precision == "int8" else None
        model = network.read_bytes() if network else b""
        say(how_far_off(loaded, crops, precision=precision, network=model))
    settings = describe(loaded, body, decoder, preprocessing, occlusion, precision, model)
    if jitter:
        settings["crop"]["jitter"] = seed
    jobs = {
        name: Job(
            dataset, name, root, out / dataset / name, backbone, weights, body, batch_size, preprocessing,
            {"dataset": dataset, "split": name, **settings}, tracks, uuid.uuid4().hex[:8], network,
        )
        for name in splits
    }  # fmt: skip
    manifests = extract(jobs, units, workers, occlusion)
    for name, manifest in manifests.items():
        say_skipped(jobs[name], manifest)
    return 1 if not allow_skips and any(manifest.skipped for manifest in manifests.values()) else 0


def decoder_of(dataset: str, tracks: Path | None) -> Decoder:
    return video_decoder(tracks) if dataset == "video" else DECODERS[dataset]


def describe(
    backbone: Backbone,
    body: Path | None,
    decoder: Decoder,
    preprocessing: str,
    occlusion: Occlusion | None,
    precision: str = "float32",
    network: bytes = b"",
) -> dict[str, Any]:
    """What a feature set is made with; two runs may share a folder only if these agree."""
    person = load_body(body)
    return {
        "backbone": {
            "name": backbone.name,
            "weights": backbone.weights_name,
            "hash": hash_of(backbone, network),
            "feature_size": backbone.feature_size,
            "precision": precision,
        },
        "precision": precision,  # by itself, too: of two backbones only the hashes are compared
        "body": {"name": (body or OPEN_BODY).name, "hash": person.file_hash, "open": person.is_open},
        "crop": {
            "size": backbone.crop_size,
            "scale": decoder.crop_scale,
            "box": decoder.box_rule,
            "rule": "square of side scale * width, bilinear, black outside",
            "preprocessing": preprocessing,
            "reference": decoder.reference if preprocessing == "reference" else "",
            "occluders": occlusion.describe() if occlusion else None,
        },
    }


def extract(
    jobs: Mapping[str, Job], units: Mapping[str, Sequence[Unit]], workers: int, occlusion: Occlusion | None
) -> dict[str, Manifest]:
    """Extracts what is missing of the splits, in one go, and publishes each."""
    with ExitStack() as folders:
        missing: list[tuple[Job, Unit]] = []
        for split, job in jobs.items():
            folders.enter_context(open_set(job.folder, job.settings))
            done = finished(job.folder, units[split])
            todo = [unit for unit in units[split] if unit.name not in done]
            state = f"{len(done)} of them done before" if todo else "all of them done before"
            say(f"{job.what}: {len(units[split])} sequences" + (f", {state}" if done else ""))
            missing += [(job, unit) for unit in todo]
        if missing:
            run(missing, workers, occlusion)
        manifests, errors = {}, []
        for split, job in jobs.items():
            try:
                manifest = publish(job.folder, units[split], finished(job.folder, units[split]), job.settings)
            except InputError as error:  # one split of nothing; the others are not held back by it
                errors.append(error)
                continue
            say(f"{job.what}: {manifest.rows} rows of {manifest.tracks} tracks in {job.folder}")
            manifests[split] = manifest
    if errors:
        raise errors[0]
    return manifests


def run(work: Sequence[tuple[Job, Unit]], workers: int, occlusion: Occlusion | None) -> None:
    """The Ray Data job: names of units -> a pool of actors that decode, crop, run the network and write."""
    with ray_session() as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if work[0][0].backbone == "blazepose":  # is for CPUs: as if there were no GPU
            nodes = [{kind: amount for kind, amount in node.items() if kind != "GPU"} for node in nodes]
        workers, resources, threads = plan(nodes, workers, len(work))
        free = ray.available_resources()
        if any(free.get(kind, 0) < workers * resources[f"num_{kind.lower()}s"] for kind in ("CPU", "GPU")):
            say(f"other work holds CPUs or GPUs that {workers} workers need; they start as it lets go of them")
        tally = ray.remote(num_cpus=0)(Tally).remote()
        # Longest first, one unit at a time to an actor: nobody is left with a queue at the end.
        work = sorted(work, key=lambda item: -item[1].frames)
        items = [{"split": job.split, "unit": unit.to_json()} for job, unit in work]
        jobs = {job.split: job for job, _ in work}
        shared = ray.put(occlusion) if occlusion else None  # hundreds of MB; once on a node, not once in every worker
        total, what = sum(unit.frames for _, unit in work), f"extract {work[0][0].dataset}"
        try:
            with Display(lambda: ray.get(tally.read.remote()), total=total, what=what):
                ray.data.from_items(items, override_num_blocks=len(items)).map(
                    ExtractUnit,
                    fn_constructor_kwargs={"jobs": jobs, "tally": tally, "threads": threads, "occlusion": shared},
                    compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                    **resources,
                ).materialize()
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # weights that differ between nodes
            reason = str(cause) if isinstance(cause, InputError) else ray.get(tally.failed.remote())  # a full disk
            if reason:
                raise InputError(f"{reason}; what is done is kept, run the same command again") from None
            raise


class ExtractUnit:
    """What an actor runs: ``__call__`` does one unit and leaves its part and its record."""

    def __init__(self, jobs: Mapping[str, Job], tally: Any, threads: int, occlusion: Any) -> None:
        import ray

        self.occlusion: Occlusion | None = ray.get(occlusion) if occlusion else None
        self.jobs, self.tally, self.threads = jobs, tally, threads
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        job = next(iter(jobs.values()))
        backbone = load_backbone(job.backbone, job.weights)
        network = job.network.read_bytes() if job.network else b""
        if hash_of(backbone, network) != job.settings["backbone"]["hash"]:
            raise InputError(
                f"--weights {job.weights}: not the same file on every node; put it on a shared file system"
            )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        precision = job.settings["precision"]
        self.extractor = Extractor(backbone, device=device, precision=precision, network=network)
        self.body = load_body(job.body)
        tally.add.remote(workers=1)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        job, unit = self.jobs[str(row["split"])], Unit.from_json(str(row["unit"]))
        if not begin(job.folder, unit, run=job.run, tries=MOST_TRIES):
            reason = f"the worker died on it {MOST_TRIES} times: a decoder that crashes, or too little memory"
            skipped = [{"what": unit.annotation, "reason": reason, "frames": unit.frames}]
            write_record(job.folder, Record(unit.name, list(unit.sources), None, skipped=skipped))
            self._report(unit.frames, unit.frames)
            return {"unit": unit.name}
        try:
            record = extract_unit(
                job, unit, self.extractor, self.body,
                occlusion=self.occlusion, threads=self.threads, report=self._report,
            )  # fmt: skip
            write_record(job.folder, record)
        except OSError as error:
            import ray

            ray.get(self.tally.fail.remote(f"{job.folder}: {error}"))
            raise
        return {"unit": unit.name}

    def _report(self, frames: int, skipped: int) -> None:
        self.tally.add.remote(frames=frames, skipped=skipped)


def extract_unit(
    job: Job,
    unit: Unit,
    extractor: Extractor,
    body: Body,
    *,
    occlusion: Occlusion | None,
    threads: int,
    report: Callable[[int, int], None],
) -> Record:
    """Decodes a unit, runs the network over its crops, writes its part. What cannot be read becomes ``skipped``."""
    sources = list(unit.sources)
    try:
        decoded = decoder_of(job.dataset, job.tracks).decode(job.root, unit, body, job.preprocessing)
    except InputError as error:
        report(unit.frames, unit.frames)
        skipped = [{"what": unit.annotation, "reason": str(error), "frames": unit.frames}]
        return Record(unit.name, sources, None, skipped=skipped)
    clips, counts = decoded.clips, decoded.counts
    if (seed := job.settings["crop"].get("jitter")) is not None:
        clips = [replace(clip, bbox=jittered(clip.bbox, _random(seed, clip.track_id))) for clip in clips]
    skipped = list(decoded.skipped)
    with Spool([len(clip) for clip in clips], job.settings["backbone"]["feature_size"]) as features:
        told = 0
        for frames, lost in fill(features, clips, job, extractor, occlusion=occlusion, threads=threads):
            if lost:
                add_lost(skipped, *lost)
            if lost or frames - told >= REPORT_FRAMES:
                report(frames - told, int(lost is not None))
                told = frames
        part = write_part(job.folder, unit, pieces(clips, features, job), dataset=job.dataset, split=job.split)
        rows = sum(int(there.sum()) for there in features.there)
    report(max(unit.frames - told, 0), 0)  # frames without a visible person were never read
    return Record(unit.name, sources, part, {**counts, "rows": rows}, skipped)


def _random(seed: int, track: str) -> np.random.Generator:
    """The same for a track whoever extracts it, and whenever."""
    return np.random.default_rng([seed, *hashlib.sha256(track.encode()).digest()])


def fill(
    features: Spool, clips: Sequence[Clip], job: Job, extractor: Extractor, *, occlusion: Occlusion | None, threads: int
) -> Iterator[tuple[int, tuple[str, str] | None]]:
    """Runs the network over all crops; yields how many frames were read, and of the latest (image, reason) if lost."""
    crops: list[NDArray[np.uint8]] = []
    places: list[tuple[int, int]] = []  # (clip, row) of each of them

    def forward() -> None:
        for (clip, row), feature in zip(places, extractor(np.stack(crops)), strict=True):
            features.put(clip, row, feature)
        crops.clear()
        places.clear()

    alter = occlusion.over(f"{job.dataset}/{job.split}") if occlusion else None
    size = job.settings["crop"]["size"]
    pictures = read_crops(job.root, clips, size=size, alter=alter, threads=threads, ahead=2 * job.batch_size)
    for frames, frame in enumerate(pictures, 1):
        if frame.crops is not None:
            for place, crop in zip(frame.people, frame.crops, strict=True):
                places.append(place)
                crops.append(crop)
                if len(crops) == job.batch_size:
                    forward()
        yield frames, (frame.image, frame.reason) if frame.crops is None else None
    if crops:
        forward()


def pieces(clips: Sequence[Clip], features: Spool, job: Job) -> Iterator[tuple[Clip, NDArray[np.float32]]]:
    """Rows that have features, some thousand at a time: labels of a long video are made as they are written."""
    rounded = job.preprocessing == "reference" and not job.split.startswith("test")  # evaluation reads them as stored
    for number, (clip, there) in enumerate(zip(clips, features.there, strict=True)):
        kept = np.flatnonzero(there)
        for start in range(0, len(kept), PIECE_ROWS):
            rows = kept[start : start + PIECE_ROWS]
            piece = clip.take(rows)
            yield round_targets(piece) if rounded else piece, features.take(number, rows)


def add_lost(skipped: list[dict[str, Any]], image: str, reason: str) -> None:
    """Adds a picture that could not be read; of a video, which is lost from there on, only the first one is named."""
    part, last = video_frame(image), skipped[-1] if skipped else None
    if part and last and last["reason"] == reason and last["what"].startswith(f"{part[0]}#"):
        last["frames"] += 1
    else:
        skipped.append({"what": image, "reason": reason, "frames": 1})


def plan(nodes: Sequence[Mapping[str, float]], workers: int, units: int) -> tuple[int, dict[str, float], int]:
    """(workers, Ray resources of one, threads that read pictures in one) for the nodes' resources.

    InputError if the nodes cannot hold so many workers: Ray would wait for them without end.
    """
    cpus, gpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("CPU", "GPU"))
    room = gpus or cpus
    if not room or workers > room:
        have = f"{gpus} GPUs" if gpus else f"{cpus} CPUs"
        raise InputError(f"--workers {workers}: this Ray has {have}, so at most {room} workers; 0 takes all it can use")
    workers = min(workers or room, max(units, 1))
    if not gpus:
        return workers, {"num_cpus": CPU_OF_A_WORKER, "num_gpus": 0}, 1
    # On a GPU, reading pictures is what takes time: every worker gets its share of its node's cores for it.
    share = max(1, int(min(node.get("CPU", 0) // node["GPU"] for node in nodes if node.get("GPU"))))
    return workers, {"num_cpus": share * CPU_OF_A_WORKER, "num_gpus": 1}, share


@contextmanager
def ray_session() -> Iterator[Any]:
    """Ray with a Ray Data that says nothing of its own and waits for long units."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("ray").setLevel(logging.ERROR)
    import ray
    import ray.data

    ours = connect()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # Ray Data gives up after half an hour in which no unit ended
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def say_skipped(job: Job, manifest: Manifest) -> None:
    """Names the first things skipped and counts the rest."""
    for entry in manifest.skipped[:SHOWN_SKIPS]:
        say(f"{job.what}: skipped {entry['what']}: {entry['reason']}")
    if manifest.skipped:
        frames = sum(entry["frames"] for entry in manifest.skipped)
        where = f"{len(manifest.skipped)} skipped in all ({frames} frames), listed in {job.folder / 'manifest.json'}"
        say(f"{job.what}: {where}; --allow-skips says that this is fine")


def say(text: str) -> None:
    """To the terminal or a job's log at once, not when a buffer is full."""
    print(text, flush=True)
