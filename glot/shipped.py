"""The name of a file that comes with the project in, its path out: the networks and the open body of glot/assets.

A Ray job runs in a copy of the checkout that leaves the networks behind, because they are ten times as large as the
rest (.rayignore). The files are looked for in this order:

1. glot/assets of the code that runs;
2. glot/assets of an installed glot, which the copy of a job hides: a wheel, or the checkout of an editable install;
3. $GLOT_HOME/body, where SMPL and SPIN's weights are, too;
4. the cache, where they are fetched to from $GLOT_WEIGHTS_URL, if it is set: a folder or a URL (https://, s3://, ...)
   that holds a copy of glot/assets. The project itself publishes its files nowhere but in its repository and its wheel.

A file from any place but the first is taken only if its hash is the one in SHA256.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from glot.errors import InputError, NotNowError, is_passing
from glot.home import home
from glot.location import BLOCK_BYTES, cache_folder, is_remote, location, write_whole

ASSETS = Path(__file__).parent / "assets"
WEIGHTS_URL = "GLOT_WEIGHTS_URL"
SHA256 = {
    "glot_open/config.json": "ce8c6305c9daf66e6dc65b2c5a0600fbcaaa2ef85eb4ba197aab0f79bb305fd0",
    "glot_open/model.safetensors": "ca77796166ea982a796f40cf7c4e7ea66d74778fa2cf416e1224e6584b05f016",
    "glot_video/config.json": "28752685f30e2ead320a07c929d223ca5ebb578c912e68d2d6ee704e25ffe441",
    "glot_video/model.safetensors": "2a7bdff4138ee01c5815cc3d835dea6b0fc253f46eb476f2aa5d600ec7fa16d6",
    "open_body.npz": "ed0f07172d17a33fabae4bfdc1330f03dd816f19d4a3494316a45fd10b2a1705",
    "resnet50_open.safetensors": "48ad7277694ea4b2426309b019077cabec6aa677d8d6f2cc3e0e5ccaa5db0638",
}


def shipped_file(name: str) -> Path:
    """The file ``name`` of SHA256. InputError naming the places that do not have it, and the remedies.

    NotNowError where it should be fetched and that failed.
    """
    return _folder_with([name]) / name


def shipped_folder(name: str) -> Path:
    """A folder with all files of SHA256 whose names begin with ``name/``. Errors as in ``shipped_file``."""
    return _folder_with([file for file in SHA256 if file.startswith(f"{name}/")]) / name


def _folder_with(names: Sequence[str]) -> Path:
    """The first place that has all these files. Fetches them if there is no such place."""
    looked = [str(ASSETS)]
    if all((ASSETS / name).is_file() for name in names):
        return ASSETS
    cache = cache_folder() / "assets"
    for folder in (*_installed(), home() / "body", cache):
        if not all((folder / name).is_file() for name in names):
            looked.append(str(folder))
        elif not all(is_whole(folder / name, name) for name in names):
            looked.append(f"{folder} (which has another version of it)")
        else:
            return folder
    if not os.environ.get(WEIGHTS_URL):
        raise InputError(
            f"{names[-1]}: this file of the project is missing; looked in {', '.join(looked)}. Install the wheel on "
            "every node, or copy the content of glot/assets of a checkout to $GLOT_HOME/body on a file system that all "
            f"nodes see, or set {WEIGHTS_URL} to a folder or URL with that content"
        )
    for name in names:
        _fetch(name, cache)
    return cache


def is_whole(path: Path, name: str) -> bool:
    """Whether the file at ``path`` has the content that ``name`` stands for."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == SHA256[name]


def _installed() -> Iterator[Path]:
    """glot/assets of every glot that is installed for this Python, except the one that runs."""
    for found in distributions(name="glot"):
        for folder in (Path(str(found.locate_file("glot"))), _editable(found)):
            if folder is not None and folder.is_dir() and folder.resolve() != ASSETS.parent.resolve():
                yield folder / "assets"


def _editable(found: Distribution) -> Path | None:
    """The package's folder in the checkout of an editable install: its URL is in direct_url.json (PEP 610)."""
    about = json.loads(found.read_text("direct_url.json") or "{}")
    url = urlsplit(about.get("url", ""))
    return Path(unquote(url.path)) / "glot" if url.scheme == "file" and "dir_info" in about else None


def _fetch(name: str, cache: Path) -> None:
    """Copies a file from $GLOT_WEIGHTS_URL into the cache; one process of a machine does it, the others wait."""
    source, target = location(os.environ[WEIGHTS_URL]) / name, cache / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file() and is_whole(target, name):
                return
            content = _content(source)
            if hashlib.sha256(content).hexdigest() != SHA256[name]:
                raise InputError(f"{WEIGHTS_URL}: {source} is not the file that this version of the project knows")
            write_whole(target, content)
    except OSError as error:
        kind = NotNowError if is_passing(error) else InputError
        raise kind(f"{target}: cannot be written ({error}); name another folder in GLOT_CACHE") from None


def _content(source: Path) -> bytes:
    try:
        # UPath's own read_bytes takes a server that does not answer for a file that does not exist.
        return cast(Any, source).fs.cat_file(cast(Any, source).path) if is_remote(source) else source.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{WEIGHTS_URL}: {source}: there is no such file") from None
    except Exception as error:  # every kind of store has its own exceptions
        raise NotNowError(f"{WEIGHTS_URL}: {source} cannot be read now ({error})") from None
