"""What is done when a disk or an object store fails: tried again, reported as "not now", or the input's own fault.

The kind of a failure follows from its type, its errno and its HTTP status, never from its message. The libraries of
stores raise their own errors beside OSError (botocore, aiohttp, gcsfs, google, azure), and none has to be installed.
"""

import asyncio
import concurrent.futures
import http.client
import random
import time
from collections.abc import Callable
from typing import TypeVar

from glot.errors import NotNowError, is_passing

TRIES = 5
FIRST_WAIT = 1.0  # s; each further wait is twice as long. Five tries wait about 15 s, between 8 and 23
TIME_LIMIT = 60.0  # s after which no new try begins: a store that does not answer costs a timeout in each try

Result = TypeVar("Result")

# Packages that talk to stores -> the attribute of their errors with the HTTP status of the answer. An error of theirs
# that is no OSError comes from the network, the store or its keys. (aiohttp's errors of a body that ends too early have
# a "code" of 400, although the store never said so.)
STORE_PACKAGES = {
    "aiobotocore": "", "aiohttp": "status", "azure": "status_code", "botocore": "", "gcsfs": "code", "google": "code",
    "msal": "", "urllib3": "",
}  # fmt: skip
STORE_ERRORS = (asyncio.TimeoutError, concurrent.futures.TimeoutError, http.client.HTTPException)
GONE = {404, 410}
CHANGED = {412, 416}  # If-Match fails; the range is behind the end
BUSY = {408, 409, 425, 429, *range(500, 600)}


class ChangedError(NotNowError):
    """A source is not what it was when it was opened, or when it was listed."""


def retried(action: Callable[[], Result], name: object, *, remote: bool, doing: str = "read") -> Result:
    """What ``action`` returns; it is called again, after a growing wait, while it fails in a way that may pass.

    ``name`` is what is read, or what else is ``doing``, for messages. FileNotFoundError and other errors that the path
    itself is guilty of are raised as they are. NotNowError if the last try fails, or at once where waiting does not
    help (rights, keys); ChangedError if the store says that the source is another one now.
    """
    limit = time.monotonic() + TIME_LIMIT
    for number in range(1, TRIES + 1):
        try:
            return action()
        except Exception as error:
            last = number == TRIES or time.monotonic() > limit
            if not may_pass_soon(error, name, remote=remote) or last:
                raise not_now(error, name, doing) from error
        time.sleep(FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.5, 1.5))
    raise AssertionError


def may_pass_soon(error: Exception, name: object, *, remote: bool) -> bool:
    """Whether to try again at once. Raises what is not to be tried again and is no "not now" either."""
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | NotNowError):
        raise error
    status = http_status(error)
    if status in GONE:
        raise FileNotFoundError(f"{name}: {error}") from error
    if status in CHANGED or type(error).__name__ == "FileExpired":  # s3fs's word for 412
        raise ChangedError(f"{name}: changed while it was read") from error
    if status is not None:
        return status in BUSY  # other answers: rights, keys, a request that this store does not know
    if isinstance(error, PermissionError):
        return False
    if isinstance(error, OSError):
        if is_passing(error):
            return True
        if remote:
            return False  # s3fs gives EINVAL to expired keys and many other answers
        raise error
    if is_of_store(error):
        return True
    raise error


def is_of_store(error: BaseException) -> bool:
    """Whether an error that is no OSError comes from a store or the way to it."""
    return isinstance(error, STORE_ERRORS) or bool(packages_of(error) & STORE_PACKAGES.keys())


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status of the answer that an error is about, or that its cause is about; None without an answer."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            attributes = (STORE_PACKAGES.get(package) for package in packages_of(error))
            found = next((getattr(error, name, None) for name in attributes if name), None)
        if isinstance(found, int | str) and str(found).isdecimal():
            return int(found)
        error = error.__cause__
    return None


def packages_of(error: BaseException) -> set[str]:
    """The top packages of the error's class and of those it is derived from."""
    return {kind.__module__.partition(".")[0] for kind in type(error).__mro__}


def not_now(error: BaseException, name: object, doing: str) -> NotNowError:
    """The error as one line: what could not be read, and why."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return NotNowError(f"{name}: cannot be {doing} now ({' '.join(str(reason).split())})")
