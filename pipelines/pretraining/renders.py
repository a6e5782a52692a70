"""Motions and a body in, rendered people with labels out, kept on disk in shards of 100.

The seed and its number alone determine a shard. It is written under a temporary name, then renamed. So every file with
its final name is whole, and the same call continues an unfinished cache.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from glot import cli
from glot.errors import InputError
from glot.human.body import Body, load_body
from glot.location import move_in, temporary_of
from pipelines.decoders.threedpw import FEWEST_VISIBLE, LIMBS_IN_SPIN49
from pipelines.motions.motion_clip import MotionClip
from pipelines.motions.variety import Variety
from pipelines.scenes.filming import Render, random_render
from pipelines.scenes.render_folder import check_settings, check_unused, read_settings, write_settings
from pipelines.scenes.render_processes import RenderSource, render_jobs
from pipelines.scenes.sequence_plan import hash_of_clips

PICTURE_SIZE = 320  # px; large enough that crops of 224 px are seldom enlarged by more than a half
JPEG_QUALITY = 90
SHARD = 100  # pictures in a file
LABELS = {"keypoints2d": (49, 3), "joints3d": (49, 3), "pose": (24, 3), "betas": (10,)}


@dataclass(frozen=True)
class RenderSettings:
    """Everything that decides what a cache contains, except for its length; the content of settings.json."""

    seed: int
    motions: str  # hash of the clips
    body: str  # hash of the body file
    varied: bool = True  # False: poses as they were recorded
    shard: int = SHARD
    version: int = 2  # raised when a seed gives other pictures than before


def render_shard(number: int, settings: RenderSettings, *, body: Body, clips: dict[str, MotionClip]) -> list[Render]:
    """The pictures of shard ``number``."""
    rng = np.random.default_rng([settings.seed, int(settings.varied), number])
    variety = Variety(clips) if settings.varied else None
    renders: list[Render] = []
    while len(renders) < settings.shard:
        drawn = {"a": variety.draw_clip(rng), "b": variety.draw_clip(rng)} if variety else clips
        render = random_render(rng, body=body, clips=drawn, size=PICTURE_SIZE)
        # Extraction leaves out people with fewer visible joints, so the network need not recognise them.
        if (render.keypoints2d[LIMBS_IN_SPIN49, 2] > 0).sum() >= FEWEST_VISIBLE:
            renders.append(render)
    return renders


def write_shard(path: Path, renders: list[Render]) -> None:
    codes = [cv2.imencode(".jpg", r.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1] for r in renders]
    arrays = {name: np.stack([getattr(r, name) for r in renders]).astype(np.float32) for name in LABELS}
    offsets = np.cumsum([0, *map(len, codes)])
    temporary = temporary_of(path)
    with temporary.open("wb") as file:
        np.savez(file, jpeg=np.concatenate(codes), offsets=offsets, **arrays)  # type: ignore[arg-type]
    move_in(temporary, path)


class Renders:
    """The first ``images`` pictures of a cache, as JPEGs in memory: ``image(i)``, and ``labels``, arrays (N, ...)
    float32 by name.

    Raises InputError if a shard cannot be read.
    """

    def __init__(self, folder: Path, *, images: int) -> None:
        found = read_settings(settings_file(folder), folder)
        self.images, self.shard = images, int(found.get("shard", 0)) or 1
        count = -(-images // self.shard)
        shards = [_read_shard(shard_file(folder, number), self.shard) for number in range(count)]
        self._codes = [(shard["jpeg"], shard["offsets"]) for shard in shards]
        self.labels = {name: np.concatenate([shard[name] for shard in shards])[:images] for name in LABELS}

    def __len__(self) -> int:
        return self.images

    def image(self, index: int, *, half: bool = False) -> np.ndarray:
        """(H, W, 3) uint8 BGR. ``half`` decodes it at half the size, in a third of the time."""
        codes, offsets = self._codes[index // self.shard]
        code = codes[offsets[index % self.shard] : offsets[index % self.shard + 1]]
        image = cv2.imdecode(code, cv2.IMREAD_REDUCED_COLOR_2 if half else cv2.IMREAD_COLOR)
        assert image is not None, "a whole shard holds a picture that cannot be decoded"
        return image


def shard_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def settings_file(folder: Path) -> Path:
    return folder / "settings.json"


def _read_shard(path: Path, size: int) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as npz:
            arrays = {name: npz[name] for name in ("jpeg", "offsets", *LABELS)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: not a whole shard of renders ({error}); remove it and run again") from None
    if any(arrays[name].shape != (size, *shape) for name, shape in LABELS.items()):
        raise InputError(f"{path}: not a shard of {size} renders; remove it and run again")
    return arrays


def fill_cache(
    folder: Path,
    images: int,
    source: RenderSource,
    *,
    seed: int,
    varied: bool = True,
    shard: int = SHARD,
    workers: int = 1,
) -> Renders:
    """Renders the missing ones of ``images`` pictures and opens the cache. The cache may hold more pictures.

    Raises InputError if ``folder`` holds renders of another seed, of other clips or of another body.
    """
    body_hash = load_body(source.body).file_hash
    settings = RenderSettings(seed, hash_of_clips(source.clips), body_hash, varied, shard)
    start_or_continue(folder, settings)
    remaining = [n for n in range(-(-images // shard)) if not shard_file(folder, n).is_file()]
    if remaining:
        done = render_jobs(partial(_make_shard, folder, settings), remaining, source, workers=workers)
        for _ in cli.progress(done, total=len(remaining), what=f"renders, {shard} each"):
            pass
    return Renders(folder, images=images)


def _make_shard(
    folder: Path, settings: RenderSettings, number: int, *, body: Body, clips: dict[str, MotionClip]
) -> None:
    write_shard(shard_file(folder, number), render_shard(number, settings, body=body, clips=clips))


def start_or_continue(folder: Path, settings: RenderSettings) -> None:
    """Makes the folder. Raises InputError if it holds anything but renders of these settings."""
    if settings_file(folder).is_file():
        found = read_settings(settings_file(folder), folder)
        check_settings(folder, found, asdict(settings), what="renders")
        return
    check_unused(folder, what="renders")
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(settings_file(folder), asdict(settings))
