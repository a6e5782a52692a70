"""A feature set of Parquet parts in, a folder with one .npy file per column out: the copy that training reads.

The copy has the features in the type that the set has, and the rows of each track together. It is a cache: its folder
may be deleted at any time. Every machine builds its copy once, with only a few batches of rows in RAM. A set whose
parts are those of another one, byte for byte, has the same copy.
"""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from glot.cli import progress
from glot.errors import InputError, NotNowError, is_passing
from glot.features.copy_cache import (
    HeldCopy,
    begun,
    building_of,
    clear,
    copies,
    count_as_used,
    hold,
    index_of,
    put_in_place,
    room_for,
    write_index,
)
from glot.features.copy_writing import columns_of, copy_bytes, outputs, rows_of, write_rows
from glot.features.layout import Layout, layout_of
from glot.features.schema import Manifest, Part, parts
from glot.file_lock import turn
from glot.location import file_hash, is_remote

LAYOUT = 1  # version of the copy; part of its folder's name


def local_copy(folder: Path, manifest: Manifest, cache: Path) -> HeldCopy:
    """The copy below ``cache`` of the feature set in ``folder``; built if it is not there.

    Any number of processes may ask for the same copy at once: one builds it, the others wait. InputError where the
    feature set is damaged, or the copy does not fit. NotNowError where a disk or a store fails meanwhile, and where the
    room is taken by copies that other processes use (see copy_cache).
    """
    files = parts(folder, manifest)
    # The manifest's key changes with the content of the set, the parts' stamps when the same set is made again.
    stamps = "".join(f"{part.path.name} {part.stamp}\n" for part in files)
    name = f"{manifest.key}-{hashlib.sha256(stamps.encode()).hexdigest()[:8]}-{LAYOUT}"
    target = cache / name
    try:
        if (held := hold(target)) is None:
            cache.mkdir(parents=True, exist_ok=True)
            with turn(cache / f".{name}.lock"):
                held = hold(target) or _same(folder, files, manifest, target) or _built(folder, files, manifest, target)
        count_as_used(held.folder)
        return held
    except OSError as error:  # of the cache: errors of the feature set have their own kinds
        kind = NotNowError if is_passing(error) else InputError
        raise kind(f"{cache}: the local copy of {folder} cannot be kept there ({error}); set GLOT_CACHE") from error


def _same(folder: Path, files: list[Part], manifest: Manifest, target: Path) -> HeldCopy | None:
    """The copy of another set with the same parts, which gets the name ``target``, too. None where there is none."""
    facts, sizes = _facts(manifest), [part.bytes for part in files]
    for copy in reversed(copies(target.parent)):
        index = index_of(copy.folder)
        known = index.get("parts", [])
        if not known or {name: index.get(name) for name in facts} != facts or [size for size, _ in known] != sizes:
            continue
        held = hold(copy.folder)  # from here on, nobody removes it
        if held and all(made_of and made_of == _content(part) for part, (_, made_of) in zip(files, known, strict=True)):
            _check_unchanged(folder, files, manifest)
            with suppress(OSError):  # without this name, the parts are compared again the next time
                clear(target)
                target.symlink_to(copy.folder.name)
            return held
    return None


def _facts(manifest: Manifest) -> dict[str, Any]:
    """What an index says about a set besides its parts, where two sets with the same parts could differ."""
    feature = [manifest.feature_dtype, manifest.backbone["feature_size"]]
    return {"layout": LAYOUT, "rows": manifest.rows, "people": manifest.tracks, "feature": feature}


def _content(part: Part) -> str:
    """The hash of a part, which is read for it; of one in a store, its place and its ETag. "" if it cannot be read."""
    if is_remote(part.path):
        return f"{part.path} {part.stamp}"
    try:
        return file_hash(part.path)
    except OSError:
        return ""


def _built(folder: Path, files: list[Part], manifest: Manifest, target: Path) -> HeldCopy:
    """Copies the parts into a folder of another name: the columns, then the index. Gives it the name ``target``."""
    layout, columns = _checked_layout(folder, files, manifest), columns_of(manifest)
    building = building_of(target)
    what = f"local copy of {manifest.dataset}/{manifest.split}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, building, ignore_errors=True)
        with room_for(copy_bytes(manifest.rows, columns), building, what=f"the {what}"):
            held = begun(building)
            targets = stack.enter_context(outputs(building, manifest.rows, columns))
        # The parts are hashed while they are copied, so that they are read only once from their disk.
        hashing = ThreadPoolExecutor(1)
        stack.callback(hashing.shutdown, cancel_futures=True)
        contents = [hashing.submit(_content, part) for part in files]
        rows = rows_of(progress(files, total=len(files), what=what), manifest.row_schema, columns)
        write_rows(rows, layout, targets)
        index = {
            "tracks": layout.tracks,
            "bytes": {f"{name}.npy": (building / f"{name}.npy").stat().st_size for name in columns},
            "parts": [(part.bytes, content.result()) for part, content in zip(files, contents, strict=True)],
            "set": f"{manifest.dataset}/{manifest.split}",
            **_facts(manifest),
        }
        write_index(building, index)
        _check_unchanged(folder, files, manifest)
        return put_in_place(held, target)


def _checked_layout(folder: Path, files: list[Part], manifest: Manifest) -> Layout:
    layout = layout_of(files, manifest.row_schema)
    if layout.rows != manifest.rows or len(layout.tracks) != manifest.tracks:
        raise InputError(
            f"{folder}: {layout.rows} rows of {len(layout.tracks)} tracks, but the manifest has {manifest.rows} of "
            f"{manifest.tracks}; extract the features again"
        )
    return layout


def _check_unchanged(folder: Path, files: list[Part], manifest: Manifest) -> None:
    if parts(folder, manifest) != files:
        raise NotNowError(f"{folder}: was written while it was copied; try again later")
