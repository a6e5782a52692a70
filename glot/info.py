"""The command that shows what is installed, and what is where on this machine. Nothing heavy is imported for it."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from glot import cli
from glot.code_version import code_version
from glot.cores import available_cores
from glot.errors import InputError, NotNowError, is_passing
from glot.features import copy_cache
from glot.features.backbones.blazepose_files import SHA256 as BLAZEPOSE
from glot.features.backbones.listing import describe_backbones, list_backbones
from glot.features.dataset_folders import MAKE_SAMPLE, SAMPLE_DATASET, extraction_commands
from glot.features.schema import MANIFEST
from glot.gpus import gpus
from glot.home import body_folder, data_folder, features_folder, home, runs_folder
from glot.location import cache_bytes, cache_folder
from glot.people import source_cache
from glot.shipped import SHA256 as SHIPPED

BACKBONES = "backbones"  # what can be asked for
PACKAGES = ("torch", "torchvision", "ray", "mlflow", "numpy", "pyarrow", "onnxruntime")
SHOWN = 8  # names in a line, copies in the list
WIDTH = 110  # characters of a line of names
UNREADABLE = "cannot be read: "


def main(
    what: Annotated[
        str | None,
        typer.Argument(show_default=False, help="backbones: which networks make features, and what each needs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="First remove the copies in the cache that no process has open.")
    ] = False,
) -> None:
    """Show versions, cores and GPUs, what is in `$GLOT_HOME`, and what takes room in the cache.

    The cache, `$GLOT_CACHE`, holds what is made or fetched again when it is needed: copies of feature sets, which
    training and evaluation read; copies of videos from object stores; networks. Copies that nobody uses are removed by
    themselves when others need the room, the least recently used first. `--prune` removes them now. Commands that run
    keep what they have open.

    Examples: `python -m glot.info`

    `python -m glot.info backbones`
    """
    if what is not None:
        if what != BACKBONES:
            raise InputError(f"{what}: there is only {BACKBONES} to ask for; leave it out for all else")
        if prune:
            raise InputError(f"--prune: removes copies in the cache; leave out {BACKBONES}")
        found = list_backbones()
        print(json.dumps(found, indent=1) if as_json else "\n".join(describe_backbones(found)))
        return
    pruned = _pruned() if prune else None
    facts = {"software": _software(), "machine": _machine(), "home": _home(), "cache": _cache(), "pruned_bytes": pruned}
    print(json.dumps(facts, indent=1) if as_json else "\n".join(_screen(facts)))


def _pruned() -> int:
    try:
        return copy_cache.remove_unused(cache_folder()) + source_cache.remove_all()
    except OSError as error:
        kind = NotNowError if is_passing(error) else InputError
        raise kind(f"--prune: {error.filename or cache_folder()} cannot be removed ({error.strerror})") from None


def _software() -> dict[str, str | None]:
    """Versions; None for a package that is not installed."""
    found: dict[str, str | None] = {"glot": code_version(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _machine() -> dict[str, Any]:
    return {"cores": available_cores(), "cores_present": os.cpu_count(), "gpus": [gpu._asdict() for gpu in gpus()]}


def _home() -> dict[str, Any]:
    """What is in the folders that commands use by default: lists of names, or a text that says why not."""

    def feature_sets() -> list[str]:
        found = [split for dataset in _folders(features_folder()) for split in _folders(dataset)]
        unfinished = {split: "" if (split / MANIFEST).is_file() else " (unfinished)" for split in found}
        return [f"{split.parent.name}/{split.name}{note}" for split, note in unfinished.items()]

    return {
        "folder": str(home().absolute()),
        "is_set": bool(os.environ.get("GLOT_HOME")),
        "data": _readable(lambda: [folder.name for folder in _folders(data_folder())]),
        "body": _readable(lambda: ["SMPL"] if body_folder() else []),
        "features": _readable(feature_sets),
        "runs": _readable(lambda: [folder.name for folder in _folders(runs_folder())]),
    }


def _cache() -> dict[str, Any]:
    folder = cache_folder()
    return {
        "folder": str(folder.absolute()),
        "is_set": bool(os.environ.get("GLOT_CACHE")),
        "free_bytes": _readable(lambda: shutil.disk_usage(_nearest(folder)).free),
        "copies": _readable(lambda: _copies(folder)),
        "copies_allowed_bytes": cache_bytes(copy_cache.LIMIT_VARIABLE),
        "sources": _readable(lambda: source_cache.contents()._asdict()),
        "networks": _readable(lambda: _networks(folder)),
    }


def _copies(folder: Path) -> list[dict[str, Any]]:
    """The copies of feature sets, the most recently used first."""
    return [
        {
            "folder": copy.folder.name,
            "set": str(copy_cache.index_of(copy.folder).get("set", "")),
            "bytes": copy.bytes,
            "used": copy.used,
            "in_use": copy_cache.is_in_use(copy),
        }
        for copy in reversed(copy_cache.copies(folder))
    ]


def _networks(folder: Path) -> list[dict[str, Any]]:
    places = [folder / name for name in BLAZEPOSE] + [folder / "assets" / name for name in SHIPPED]
    return [{"name": str(path.relative_to(folder)), "bytes": path.stat().st_size} for path in places if path.is_file()]


def _readable(ask: Callable[[], Any]) -> Any:
    """The answer, or a text that says why there is none: one folder without permission hides nothing else."""
    try:
        return ask()
    except OSError as error:
        return UNREADABLE + (error.strerror or str(error))


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones; [] where it is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _screen(facts: dict[str, Any]) -> list[str]:
    """All of it for a reader, with what to do about it."""
    software, machine = facts["software"], facts["machine"]
    named = [f"{name} {software[name] or 'missing'}" for name in ("torch", "ray", "mlflow")]
    lines = [f"glot {software['glot']}, Python {software['python']}, {', '.join(named)}"]
    limited = "" if machine["cores"] == machine["cores_present"] else f" (the machine has {machine['cores_present']})"
    cards = [f"{gpu['name']}, {gpu['memory_bytes'] / 2**30:.0f} GiB" for gpu in machine["gpus"]]
    counted = {card: cards.count(card) for card in cards}
    lines.append(
        f"this machine gives it {machine['cores']} CPU cores{limited}, "
        + ("; ".join(f"{count} x {card}" for card, count in counted.items()) or "no GPU")
    )
    if cards and "+cpu" in str(software["torch"]):
        lines.append("  but this build of torch uses no GPU; install another one, see https://pytorch.org")
    return [*lines, "", *_home_lines(facts["home"]), "", *_cache_lines(facts["cache"], facts["pruned_bytes"])]


def _home_lines(found: dict[str, Any]) -> list[str]:
    extract = extraction_commands(SAMPLE_DATASET, features_folder())[-1]
    empty = {
        "data": f"no datasets yet; {MAKE_SAMPLE} renders an open one",
        "body": "no SMPL, so the open body that comes with the project; docs/paper.md says where SMPL is",
        "features": f"no feature sets yet; {extract} makes those of the sample",
        "runs": "no runs yet; python -m glot.train_ray makes one",
    }
    lines = [f"home   {found['folder']}{'' if found['is_set'] else ' (GLOT_HOME is not set: where you stand)'}"]
    for name, instead in empty.items():
        value = found[name]
        lines.append(f"  {name:9} {value if isinstance(value, str) else _some(value) or instead}")
    return lines


def _cache_lines(found: dict[str, Any], pruned: int | None) -> list[str]:
    free = found["free_bytes"]
    lines = [
        f"cache  {found['folder']}{'' if found['is_set'] else ' (GLOT_CACHE is not set)'}, "
        + (free if isinstance(free, str) else f"{_size(free)} free")
    ]
    copies, sources, networks = found["copies"], found["sources"], found["networks"]
    if isinstance(copies, str):
        lines.append(f"  feature sets  {copies}")
    else:
        limit = found["copies_allowed_bytes"]
        most = "the unused at most half of the disk's space" if limit is None else f"at most {_size(limit)}"
        total = sum(copy["bytes"] for copy in copies)
        lines.append(f"  feature sets  {len(copies)} copies, {_size(total)} ({most}: ${copy_cache.LIMIT_VARIABLE})")
        for copy in copies[:SHOWN]:
            state = "in use" if copy["in_use"] else f"used {_ago(copy['used'])}"
            lines.append(f"    {copy['set'] or 'copied by earlier code':28} {_size(copy['bytes']):>9}  {state}")
        if copies[SHOWN:]:
            lines.append(f"    and {len(copies) - SHOWN} that were used earlier")
    if isinstance(sources, str):
        lines.append(f"  videos        {sources}")
    elif sources["copies"] or sources["making"]:
        made = f", {sources['making']} being made" if sources["making"] else ""
        used = f", used {_ago(sources['used'])}" if sources["used"] else ""
        limit = f"${source_cache.LIMIT_VARIABLE}"
        lines.append(f"  videos        {sources['copies']} copies, {_size(sources['bytes'])}{used}{made} ({limit})")
    if isinstance(networks, str):
        lines.append(f"  networks      {networks}")
    elif networks:
        lines.append(f"  networks      {len(networks)} files, {_size(sum(file['bytes'] for file in networks))}")
    if pruned is not None:
        lines.append(f"removed {_size(pruned)} that no process had open")
    elif isinstance(copies, list) and any(not copy["in_use"] for copy in copies):
        lines.append("python -m glot.info --prune removes what no process has open; it is made again when it is needed")
    return lines


def _some(names: Sequence[str]) -> str:
    """The names in a line; of many, how many more there are."""
    shown: list[str] = []
    for name in names[:SHOWN]:
        if shown and len(", ".join([*shown, name])) > WIDTH:
            break
        shown.append(name)
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def command() -> None:
    """Entry point of ``glot-info``."""
    cli.run(main)


if __name__ == "__main__":
    command()
