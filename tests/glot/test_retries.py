"""Failures of disks and stores: by type, errno and HTTP status, whatever their text says."""

import asyncio
import errno
from collections.abc import Callable

import pytest

from glot import retries
from glot.errors import NotNowError
from glot.retries import ChangedError, retried


class GoogleHttpError(Exception):
    """Made like gcsfs.retry.HttpError: no OSError, with a code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__("No such file")


GoogleHttpError.__module__ = "gcsfs.retry"


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def client_error(status: int) -> Exception:
    botocore = pytest.importorskip("botocore.exceptions")
    answer = {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.ClientError(answer, "GetObject")


def failing(*errors: Exception) -> tuple[Callable[[], str], list[Exception]]:
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "read"

    return action, left


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OSError(errno.ESTALE, "No such file or directory"),
        lambda: OSError(errno.EIO, ""),
        lambda: TimeoutError(errno.ETIMEDOUT, ""),
        lambda: ConnectionResetError(),
        lambda: asyncio.TimeoutError(),
        lambda: GoogleHttpError(503),
        lambda: GoogleHttpError(429),
        lambda: client_error(500),
        lambda: caused(OSError(errno.EINVAL, "bad"), client_error(503)),
    ],
)
def test_what_may_pass_is_tried_again(make: Callable[[], Exception]) -> None:
    action, _ = failing(*(make() for _ in range(retries.TRIES - 1)))
    assert retried(action, "walk.mp4", remote=True) == "read"
    action, left = failing(*(make() for _ in range(retries.TRIES + 1)))
    with pytest.raises(NotNowError, match=r"walk\.mp4: cannot be read now"):
        retried(action, "walk.mp4", remote=True)
    assert len(left) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: PermissionError("The provided token has expired"),
        lambda: OSError(errno.EINVAL, "The provided token is malformed"),  # s3fs's translation of 400
        lambda: caused(OSError(errno.EINVAL, ""), client_error(400)),
        lambda: client_error(403),
        lambda: GoogleHttpError(401),
    ],
)
def test_rights_and_keys_are_not_now_without_another_try(make: Callable[[], Exception]) -> None:
    action, left = failing(make(), make())
    with pytest.raises(NotNowError):
        retried(action, "walk.mp4", remote=True)
    assert len(left) == 1


@pytest.mark.parametrize("make", [lambda: GoogleHttpError(404), lambda: client_error(404), FileNotFoundError])
def test_what_is_missing_is_the_inputs_fault(make: Callable[[], Exception]) -> None:
    action, left = failing(make(), make())
    with pytest.raises(FileNotFoundError):
        retried(action, "walk.mp4", remote=True)
    assert len(left) == 1


def test_another_content_is_said_to_be_one() -> None:
    for error in (client_error(412), caused(OSError(errno.EINVAL, ""), client_error(416))):
        with pytest.raises(ChangedError, match="changed while it was read"):
            retried(failing(error)[0], "walk.mp4", remote=True)


@pytest.mark.parametrize("error", [OSError(errno.EINVAL, ""), NotADirectoryError(), ZeroDivisionError(), KeyError("x")])
def test_what_the_path_is_guilty_of_and_our_own_bugs_are_raised_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        retried(failing(error)[0], "walk.mp4", remote=False)
    assert raised.value is error


def test_no_new_try_begins_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "TIME_LIMIT", -1.0)
    action, left = failing(TimeoutError(), TimeoutError())
    with pytest.raises(NotNowError):
        retried(action, "walk.mp4", remote=True)
    assert len(left) == 1
