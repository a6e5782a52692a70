"""Sources on a disk and in a store that fails: the same bytes, few requests, and the right kind of error."""

import errno
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest

from glot import retries
from glot.errors import NotNowError
from glot.location import location
from glot.people import files, ranges, source_cache
from glot.people.files import is_changed, open_file, read_bytes
from glot.people.versions import Version, version_of
from glot.retries import ChangedError
from tests.fixtures.flaky_store import BUSY, FlakyStore

CONTENT = random.Random(0).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file were too long for the cache."""
    monkeypatch.setattr(source_cache, "LARGEST", 0)


@pytest.fixture
def quick_clients(flaky_store: FlakyStore) -> Iterator[None]:
    with flaky_store.quick_clients():
        yield


def remote(store: FlakyStore, name: str, content: bytes = CONTENT) -> Path:
    path = location(f"{store.uri}/{name}")
    path.write_bytes(content)
    return path


class Stale(io.FileIO):
    """A file whose handle turns stale after ``good`` reads, as on a network disk whose server came back."""

    failures = 0  # left
    good = 1
    handles = 0  # opened so far

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        Stale.handles += 1
        self.reads = 0

    def readinto(self, buffer: Any) -> int:
        self.reads += 1
        if self.reads > Stale.good and Stale.failures:
            Stale.failures -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().readinto(buffer)


@pytest.fixture
def stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "walk.mp4"
    path.write_bytes(CONTENT)
    monkeypatch.setattr(Path, "open", lambda self, *_, **__: Stale(self))
    Stale.failures, Stale.good, Stale.handles = 0, 1, 0
    return path


def test_a_stale_handle_is_opened_again_at_the_same_place(stale: Path) -> None:
    Stale.failures = 3
    with open_file(stale) as file:
        assert b"".join(iter(lambda: file.read(300_000), b"")) == CONTENT
        assert file.failure is None
    assert Stale.handles == 4


def test_a_disk_that_stays_away_is_not_now_and_is_remembered(stale: Path) -> None:
    Stale.failures, Stale.good = 100, 0
    with open_file(stale) as file:
        with pytest.raises(NotNowError, match=r"walk\.mp4: cannot be read now \(Stale"):
            file.read(10)
        assert isinstance(file.failure, NotNowError)
        assert Stale.failures == 100 - retries.TRIES
        with pytest.raises(NotNowError):  # at once: a decoder may ask again and again
            file.read(10)
        assert Stale.failures == 100 - retries.TRIES


def test_a_missing_file_and_a_folder_are_the_inputs_fault(tmp_path: Path, flaky_store: FlakyStore) -> None:
    for path in (tmp_path / "none", location(f"{flaky_store.uri}/none"), location("s3://no-such-bucket/none")):
        for read in (open_file, read_bytes):
            with pytest.raises(FileNotFoundError):
                read(path)
    remote(flaky_store, "folder/file", b"1")
    for path in (tmp_path, location(f"{flaky_store.uri}/folder")):
        with pytest.raises(IsADirectoryError):
            open_file(path)


def test_a_file_that_grows_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    path.write_bytes(CONTENT)
    with open_file(path) as file:
        entry = {"bytes": file.version.bytes, "modified": int(file.version.mark)}
        file.check_unchanged()
        with path.open("ab") as more:
            more.write(b"more")
        with pytest.raises(ChangedError, match="changed while it was read"):
            file.check_unchanged()
    for change in (lambda: None, path.unlink, path.mkdir):
        change()
        with pytest.raises(ChangedError, match="changed since it was listed"):
            open_file(path, entry)


def test_places_are_those_of_any_file(tmp_path: Path, flaky_store: FlakyStore, streamed: None) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    chance = random.Random(1)
    with open_file(remote(flaky_store, "places")) as there, (tmp_path / "a").open("rb") as here:
        for _ in range(60):
            offset, whence = chance.choice([(chance.randrange(3_100_000), 0), (-chance.randrange(9), 2), (5, 1)])
            assert there.seek(offset, whence) == here.seek(offset, whence)
            count = chance.choice([1, 32_768, 700_000])
            assert there.read(count) == here.read(count)
            assert there.tell() == here.tell()
        with pytest.raises(ValueError, match="no place"):
            there.seek(-1)


def test_a_copy_is_made_once_and_a_listed_one_needs_no_request(flaky_store: FlakyStore) -> None:
    path = remote(flaky_store, "copied")
    with flaky_store.counted() as requests:
        with open_file(path) as file:
            assert file.read() == CONTENT
            entry = {"bytes": len(CONTENT), "etag": file.version.mark}
        assert [request.method for request in requests] == ["HEAD", "GET"]
        requests.clear()
        with open_file(path, entry) as file:
            assert file.read() == CONTENT
            file.check_unchanged()
        assert not requests
        assert read_bytes(path) == CONTENT and len(requests) == 1
    assert read_bytes(remote(flaky_store, "empty", b"")) == b""


def test_a_source_that_was_replaced_is_not_read_from_its_old_copy(flaky_store: FlakyStore) -> None:
    path = remote(flaky_store, "replaced")
    with open_file(path) as file:
        entry = {"bytes": len(CONTENT), "etag": file.version.mark}
    remote(flaky_store, "replaced", CONTENT[::-1])
    with open_file(path) as file:
        assert file.read() == CONTENT[::-1]
    with open_file(path, entry) as file:  # what was listed is still here, so the rows agree with the list
        assert file.read() == CONTENT
    remote(flaky_store, "other", CONTENT[::-1])
    with pytest.raises(ChangedError, match="since it was listed"):
        open_file(location(f"{flaky_store.uri}/other"), entry)


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_source_that_changes_while_it_is_streamed(flaky_store: FlakyStore, streamed: None, is_gone: bool) -> None:
    path = remote(flaky_store, "changing")
    with open_file(path) as file:
        entry = {"bytes": len(CONTENT), "etag": file.version.mark}
        file.read(10)
        path.unlink() if is_gone else remote(flaky_store, "changing", CONTENT[::-1])
        file.seek(2_000_000)
        with pytest.raises(ChangedError, match="changed while it was read"):
            file.read(10)
        assert isinstance(file.failure, ChangedError)
    with pytest.raises(ChangedError, match="changed since it was listed"):
        open_file(path, entry)


def test_a_source_that_goes_while_it_is_copied(flaky_store: FlakyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    path = remote(flaky_store, "going")
    entry = {"bytes": len(CONTENT), "etag": version_of(cast(Any, path).fs.info(cast(Any, path).path)).mark}
    copy = files.cached_copy

    def remove_and_copy(uri: str, version: Version, blocks: Any) -> Any:
        if blocks:
            path.unlink()
        return copy(uri, version, blocks)

    monkeypatch.setattr(files, "cached_copy", remove_and_copy)
    with pytest.raises(ChangedError, match="changed since it was listed"):
        open_file(path, entry)


def test_a_store_without_versions_in_its_requests_is_asked_at_the_end(streamed: None) -> None:
    path = location("memory://videos/walk.mp4")
    path.write_bytes(CONTENT)
    with open_file(path) as file:
        assert file.read() == CONTENT
        file.check_unchanged()
        entry = {"bytes": len(CONTENT), "etag": file.version.mark}
        assert not is_changed(path, entry)
        path.write_bytes(CONTENT[:-1])
        with pytest.raises(ChangedError):
            file.check_unchanged()
        assert is_changed(path, entry)
        path.unlink()
        with pytest.raises(ChangedError):
            file.check_unchanged()
        assert is_changed(path, entry)


@pytest.mark.parametrize("kept", [True, False])
def test_a_store_that_fails_a_fifth_of_its_requests(
    flaky_store: FlakyStore, quick_clients: None, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    paths = [remote(flaky_store, f"many-{number}") for number in range(4)]
    monkeypatch.setattr(files, "COPIED_AT_ONCE", 500_000)
    if not kept:
        monkeypatch.setattr(source_cache, "LARGEST", 0)
    with flaky_store.failing(0.2, seed=3), flaky_store.counted() as requests:
        for path in paths:
            with open_file(path) as file:
                assert file.read() == CONTENT
            assert read_bytes(path) == CONTENT
    assert len({request.fault for request in requests}) > 2


def test_a_store_that_is_down_is_not_now(flaky_store: FlakyStore, quick_clients: None) -> None:
    path = remote(flaky_store, "down")
    with flaky_store.failing(1.0), flaky_store.counted() as requests:
        for read in (open_file, read_bytes):
            with pytest.raises(NotNowError, match="cannot be read now"):
                read(path)
    assert 2 * retries.TRIES <= len(requests) <= 4 * retries.TRIES


def test_a_range_of_a_long_video_costs_about_its_bytes(
    flaky_store: FlakyStore, streamed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "FIRST", 8 << 10)
    monkeypatch.setattr(ranges, "MOST", 64 << 10)
    video = noise(tmp_path / "long.mp4")
    path = remote(flaky_store, "long.mp4", video.read_bytes())
    with flaky_store.counted() as requests:
        found = packets(open_file(path))
    assert found == packets(video.open("rb"))
    size = sum(map(len, found))
    assert size > 500_000 and video.stat().st_size > 4 * size
    assert sum(request.bytes for request in requests) < 1.2 * size
    assert len(requests) < size / ranges.MOST + 12


def noise(path: Path) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (144, 192, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 192, 144, "yuvj420p"
        for number in range(1000):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, 0), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets(file: Any) -> list[bytes]:
    """Packets 400 to 600 of a video."""
    with av.open(file, format="mov") as container:
        stream = container.streams.video[0]
        container.seek(int(400 / 30 / stream.time_base), stream=stream)
        demuxed = container.demux(stream)
        return [bytes(next(demuxed)) for _ in range(200)]


def test_a_decoder_passes_the_failure_on(
    flaky_store: FlakyStore, streamed: None, quick_clients: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg takes an error for the end of the file; PyAV raises it all the same, from opening and from reading."""
    monkeypatch.setattr(ranges, "FIRST", 8 << 10)
    monkeypatch.setattr(ranges, "MOST", 8 << 10)
    path = remote(flaky_store, "failing.mp4", noise(tmp_path / "long.mp4").read_bytes())
    file = open_file(path)
    with flaky_store.failing(1.0, [BUSY]), pytest.raises(NotNowError):
        av.open(file, format="mov")
    assert isinstance(file.failure, NotNowError)
    for good in range(3):
        file = open_file(path)
        with av.open(file, format="mov") as container:
            frames = container.decode(video=0)
            for _ in range(good + 1):
                next(frames)
            with flaky_store.failing(1.0, [BUSY]), pytest.raises(NotNowError):
                list(frames)
        assert isinstance(file.failure, NotNowError)
