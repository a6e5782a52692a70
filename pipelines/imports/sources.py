"""The file or folder of --src in, its columns and their layout out, whoever made it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from glot import cli
from glot.location import file_hash
from pipelines.imports.feature_columns import Column, open_columns
from pipelines.imports.gvhmr_files import open_gvhmr, video_files
from pipelines.imports.hmr2_layouts import HMR2_LAYOUTS
from pipelines.imports.layouts import LAYOUTS, Layout
from pipelines.imports.spec import ImportSpec
from pipelines.imports.wham_files import open_wham

HASHED_BYTES = 1 << 24  # bytes that are read at once for the hash of a file
FRAMES_LOOKED_AT = 1000


@dataclass(frozen=True)
class Source:
    """An open file. ``skipped``: {what, reason, frames} of sequences in it that cannot be used."""

    columns: dict[str, Column]
    layout: Layout
    skipped: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def open_source(spec: ImportSpec, *, scratch: Path) -> Iterator[Source]:
    """The columns of ``spec.src``; InputError where it cannot be read. ``scratch``: see ``open_columns``."""
    if not spec.cache:
        with open_columns(spec.src, scratch=scratch) as columns:
            yield Source(columns, LAYOUTS[spec.dataset])
        return
    found = open_wham(spec.src, spec.dataset) if spec.cache == "wham" else open_gvhmr(spec.src, spec.labels)
    layout = HMR2_LAYOUTS[spec.dataset]
    if spec.dataset == "human36m":
        layout = replace(layout, fps=layout.fps * _step(found.columns.get("frame_id")))
    skipped = [{**entry, "what": f"{spec.src.name}: {entry['what']}"} for entry in found.skipped]
    yield Source(found.columns, layout, skipped)


def _step(frames: Column | None) -> int:
    """By how much the numbers of frames grow from row to row."""
    steps = np.diff(frames.rows(0, FRAMES_LOOKED_AT)) if frames is not None else np.ones(1)
    return int(np.median(steps[steps > 0])) if (steps > 0).any() else 1


def files_of(spec: ImportSpec) -> list[Path]:
    """All files that are imported."""
    return [*(video_files(spec.src) if spec.src.is_dir() else [spec.src]), *spec.labels]


def hash_of(spec: ImportSpec) -> str:
    """The first 16 hex digits of the sha256 of the file; of several files, of their names and contents."""
    files = files_of(spec)
    digest = hashlib.sha256()
    if files == [spec.src]:
        chunks = max(1, -(-spec.src.stat().st_size // HASHED_BYTES))
        with spec.src.open("rb") as file:
            for _ in cli.progress(range(chunks), total=chunks, what=f"sha256 of {spec.src.name}"):
                digest.update(file.read(HASHED_BYTES))
        return digest.hexdigest()[:16]
    for path in cli.progress(files, total=len(files), what=f"sha256 of the files of {spec.src.name}"):
        name = path.relative_to(spec.src).as_posix() if path.is_relative_to(spec.src) else path.name
        digest.update(f"{name}\0{file_hash(path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
