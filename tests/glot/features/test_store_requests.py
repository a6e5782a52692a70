"""Listings of folders on a disk and in S3 (a local server), and what opening a feature set there asks for."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from glot.errors import NotNowError
from glot.features.schema import is_feature_set, list_parts, open_part, parts, read_manifest, write_manifest
from glot.features.store import FeatureStore
from glot.location import Entry, list_folder, location, read_whole, write_whole
from tests.fixtures.features import write_feature_set, write_split_set
from tests.fixtures.flaky_store import FlakyStore, running_store


@pytest.fixture(scope="module")
def s3() -> Iterator[FlakyStore]:
    pytest.importorskip("moto")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_MAX_ATTEMPTS", "1")  # by default, a store that is away is asked for half a minute
        patched.setattr("s3fs.S3FileSystem.retries", 1)
        with running_store() as store:
            yield store


def upload(folder: Path, target: Path) -> None:
    for path in folder.iterdir():
        write_whole(target / path.name, path.read_bytes())


def test_a_listing_has_the_sizes_and_changes_with_the_files(s3: FlakyStore, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", location(f"{s3.uri}/listing")):
        assert list_folder(folder) == {} and list_folder(folder, recursive=True) == {}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "deep").mkdir(exist_ok=True)
        for name, content in (("b.txt", b"12"), ("a.txt", b"1"), ("c.bin", b""), ("deep/d.txt", b"1234")):
            write_whole(folder / name, content)
        found = list_folder(folder)
        assert {name: entry.bytes for name, entry in found.items()} == {"a.txt": 1, "b.txt": 2, "c.bin": 0}
        assert list(found) == sorted(found) and list(list_folder(folder, "*.txt")) == ["a.txt", "b.txt"]
        assert list(list_folder(folder, "*.txt", recursive=True)) == ["a.txt", "b.txt", "deep/d.txt"]
        assert all(entry.stamp for entry in found.values())
        write_whole(folder / "a.txt", b"2")
        again = list_folder(folder)
        assert again["a.txt"].stamp != found["a.txt"].stamp and again["b.txt"] == found["b.txt"]
        assert read_whole(folder / "deep" / "d.txt") == b"1234" and read_whole(folder / "c.bin") == b""
        with pytest.raises(FileNotFoundError):
            read_whole(folder / "none")
    assert list_folder(tmp_path / "a")["a.txt"] == Entry(1, (tmp_path / "a" / "a.txt").stat().st_mtime_ns)


def test_a_listing_is_one_request(s3: FlakyStore) -> None:
    folder = location(f"{s3.uri}/many")
    for number in range(20):
        write_whole(folder / f"{number:04d}.txt", b"1")
    for recursive in (False, True):
        with s3.counted() as requests:
            assert len(list_folder(folder, recursive=recursive)) == 20
        assert [request.method for request in requests] == ["GET"]


def test_opening_a_set_of_20_parts_asks_for_two_listings_and_what_it_reads(s3: FlakyStore, tmp_path: Path) -> None:
    write_feature_set(tmp_path / "whole", tracks=[60, 50, 40], feature_size=8, parts=1)
    write_split_set(tmp_path / "set", tmp_path / "whole", parts=20)
    folder = location(f"{s3.uri}/set")
    upload(tmp_path / "set", folder)
    with s3.counted() as requests:
        remote = FeatureStore.open(folder, cache=tmp_path / "cache")
    assert {request.method for request in requests} == {"GET"}
    listings = [request for request in requests if "list-type" in request.path]
    reads = [request for request in requests if "part-" in request.path and "list-type" not in request.path]
    assert len(listings) == 2 and len(requests) == len(listings) + len(reads) + 1  # and the manifest
    assert all(request.range for request in reads)
    assert len(reads) < 20 * 8
    local = FeatureStore.open(tmp_path / "set", cache=tmp_path / "cache")
    assert remote.tracks == local.tracks and (remote.features == local.features).all()
    with s3.counted() as requests:  # another process of this machine
        FeatureStore.open(folder, cache=tmp_path / "cache")
    assert len(requests) == 2


def test_a_set_that_is_made_again_is_copied_again(s3: FlakyStore, tmp_path: Path) -> None:
    folder = location(f"{s3.uri}/again")
    write_feature_set(tmp_path / "set", tracks=[20], feature_size=8, seed=1)
    upload(tmp_path / "set", folder)
    first = FeatureStore.open(folder, cache=tmp_path / "cache")
    manifest = (tmp_path / "set" / "manifest.json").read_bytes()
    write_feature_set(tmp_path / "set", tracks=[20], feature_size=8, seed=2)
    (tmp_path / "set" / "manifest.json").write_bytes(manifest)  # other content with the same manifest
    upload(tmp_path / "set", folder)
    again = FeatureStore.open(folder, cache=tmp_path / "cache")
    assert again.copy != first.copy and (again.features != first.features).any()


def test_a_set_that_only_has_another_manifest_is_not_read_again(s3: FlakyStore, tmp_path: Path) -> None:
    folder = location(f"{s3.uri}/republished")
    manifest = write_feature_set(tmp_path / "set", tracks=[20], feature_size=8)
    upload(tmp_path / "set", folder)
    first = FeatureStore.open(folder, cache=tmp_path / "cache")
    write_manifest(folder, replace(manifest, code_version="a later one"))
    with s3.counted() as requests:
        again = FeatureStore.open(folder, cache=tmp_path / "cache")
    assert not [request for request in requests if "part-" in request.path and "list-type" not in request.path]
    assert again.copy.samefile(first.copy)


@pytest.mark.parametrize("fault", ["busy", "dropped", "cut"])
def test_a_store_that_fails_is_not_the_fault_of_the_set(s3: FlakyStore, tmp_path: Path, fault: str) -> None:
    write_feature_set(tmp_path / "set", tracks=[20], feature_size=8)
    folder = location(f"{s3.uri}/away")
    upload(tmp_path / "set", folder)
    manifest = read_manifest(folder)
    assert manifest.rows == 20
    part, *_ = parts(folder, manifest)

    def read_part() -> None:
        with open_part(part, manifest.row_schema) as file:
            file.read()

    for read in (lambda: read_manifest(folder), lambda: list_parts(folder), read_part):
        with s3.failing(1.0, (fault,)), pytest.raises(NotNowError, match="cannot be read now"):
            read()
    assert is_feature_set(folder) and not is_feature_set(folder.parent / "nowhere")


class Away(Exception):
    """As botocore's, which are no OSError."""

    __module__ = "botocore.exceptions"


@pytest.mark.parametrize("error", [Away("no endpoint"), asyncio.TimeoutError(), OSError(22, "ExpiredToken")])
def test_errors_of_a_stores_library_are_of_the_store(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    folder = location("memory://set-away")
    write_whole(folder / "manifest.json", b"{}")

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("cat_file", "ls", "info"):
        monkeypatch.setattr(f"fsspec.implementations.memory.MemoryFileSystem.{name}", fail)
    for read in (read_manifest, list_parts, is_feature_set):
        with pytest.raises(NotNowError, match="set-away.*cannot be read now"):
            read(folder)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.ls", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # our own mistakes keep their trace
        list_parts(folder)
