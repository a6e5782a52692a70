"""Where the project's own networks are found, and what is refused; never is another network taken in silence."""

import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from glot import shipped
from glot.errors import InputError, NotNowError
from glot.human.body import load_body
from glot.models.inference import load_model
from glot.shipped import ASSETS, SHA256, is_whole, shipped_file, shipped_folder

BODY = "open_body.npz"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without its files, as in a job's copy; no home and an empty cache; nothing is installed."""
    monkeypatch.setattr(shipped, "ASSETS", tmp_path / "job" / "glot" / "assets")
    monkeypatch.setattr(shipped, "distributions", lambda name: [])
    monkeypatch.setenv("GLOT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GLOT_WEIGHTS_URL", raising=False)
    return tmp_path


def copy_assets(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ASSETS / name, folder / name)
    return folder


def test_every_shipped_file_is_pinned_and_is_the_one_beside_the_code() -> None:
    kinds = {".npz", ".json", ".safetensors"}
    there = {path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*") if path.suffix in kinds}
    assert there == SHA256.keys()
    assert [name for name in SHA256 if not is_whole(ASSETS / name, name)] == []
    assert shipped_file(BODY) == ASSETS / BODY and shipped_folder("glot_video") == ASSETS / "glot_video"


def test_the_shared_folder_is_used_where_the_code_has_no_files(bare: Path) -> None:
    shared = copy_assets(bare / "home" / "body", BODY, "glot_video/config.json", "glot_video/model.safetensors")
    assert shipped_file(BODY) == shared / BODY
    assert load_body(None).is_open and load_body(shared / BODY).is_open
    assert shipped_folder("glot_video") == shared / "glot_video"
    assert load_model(Path("open"), "blazepose").info["features"]["backbone"]["name"] == "blazepose"


def test_a_folder_that_lacks_one_of_the_files_is_passed_over(bare: Path) -> None:
    copy_assets(bare / "job" / "glot" / "assets", "glot_video/config.json")  # the job's copy has this one
    shared = copy_assets(bare / "home" / "body", "glot_video/config.json", "glot_video/model.safetensors")
    assert shipped_folder("glot_video") == shared / "glot_video"


def test_a_missing_file_is_one_line_with_the_places_and_the_remedy(bare: Path) -> None:
    with pytest.raises(InputError) as error:
        shipped_file(BODY)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"{BODY}: this file of the project is missing")
    for said in (bare / "job/glot/assets", bare / "home/body", bare / "cache", "GLOT_WEIGHTS_URL", "wheel"):
        assert str(said) in message


def test_another_version_of_a_file_is_not_taken(bare: Path) -> None:
    folder = bare / "home" / "body"
    folder.mkdir(parents=True)
    (folder / BODY).write_bytes((ASSETS / BODY).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"home/body \(which has another version of it\)"):
        shipped_file(BODY)


def test_files_are_fetched_once_and_checked(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = copy_assets(bare / "store", BODY)
    monkeypatch.setenv("GLOT_WEIGHTS_URL", store.as_uri())
    found = shipped_file(BODY)
    assert found == bare / "cache" / "assets" / BODY and is_whole(found, BODY)
    shutil.rmtree(store)
    assert shipped_file(BODY) == found, "from the cache"
    found.write_bytes(b"damaged")
    with pytest.raises(InputError, match="GLOT_WEIGHTS_URL: .*there is no such file"):
        shipped_file(BODY)
    store.mkdir()
    (store / BODY).write_bytes(b"other")
    with pytest.raises(InputError, match="is not the file that this version of the project knows"):
        shipped_file(BODY)
    assert found.read_bytes() == b"damaged", "what was there stays until the right file is there"


def test_files_are_fetched_from_a_web_server(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_assets(bare / "store", "glot_video/config.json", "glot_video/model.safetensors")
    handler = partial(SimpleHTTPRequestHandler, directory=str(bare / "store"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GLOT_WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}")
        assert shipped_folder("glot_video") == bare / "cache" / "assets" / "glot_video"
        with pytest.raises(InputError, match=f"{BODY}: there is no such file"):
            shipped_file(BODY)
        server.shutdown()


def test_a_server_that_does_not_answer_is_a_failure_that_may_pass(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_WEIGHTS_URL", "http://127.0.0.1:9/assets")  # nobody listens on port 9
    with pytest.raises(NotNowError, match="http://127.0.0.1:9/assets/open_body.npz cannot be read now"):
        shipped_file(BODY)


def job_copy(folder: Path) -> Path:
    """The package as a job's copy has it: the code without the networks."""
    shutil.copytree(ASSETS.parent, folder / "glot", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    return folder


def installed_in(site: Path, *, editable: Path | None = None) -> Path:
    """What pip leaves in ``site`` for a wheel, or for an editable install of the checkout at ``editable``."""
    about = site / "glot-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: glot\nVersion: 0.1.0\n")
    package = (editable or site) / "glot"
    (package / "assets").mkdir(parents=True)
    (package / "assets" / "resnet50_open.safetensors").symlink_to(ASSETS / "resnet50_open.safetensors")
    if editable:
        entry = {"url": editable.as_uri(), "dir_info": {"editable": True}}
        (about / "direct_url.json").write_text(json.dumps(entry))
    return package / "assets" / "resnet50_open.safetensors"


@pytest.mark.parametrize("editable", [False, True])
def test_the_copy_of_a_job_finds_what_is_installed(tmp_path: Path, editable: bool) -> None:
    copy = job_copy(tmp_path / "job")
    wanted = installed_in(tmp_path / "site", editable=tmp_path / "a checkout" if editable else None)
    code = "import glot.shipped as s; print(s.ASSETS); print(s.shipped_file('resnet50_open.safetensors'))"
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{tmp_path / 'site'}", "GLOT_HOME": str(tmp_path / "home")}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.split("\n")[:2] == [str(copy / "glot" / "assets"), str(wanted)], ended.stderr
