"""The kinds of failure that a command can end with, besides our own bugs, which keep their stack trace."""

import errno

# What a path or its file is guilty of. Every other error of the operating system or of a store may pass: a stale NFS
# handle, an input/output error, a store that is busy, missing rights that somebody can give.
LASTING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}


class InputError(ValueError):
    """A mistake of the user, or damage in an input. The message names what is wrong and the remedy, in one line.

    Commands print it as ``error: ...`` and exit with code 2, without a stack trace (see ``glot.cli.run``).
    """


class NotNowError(RuntimeError):
    """Something outside did not answer: a store, a node, a disk. The same command may succeed later.

    Commands print it as ``error: ...`` and exit with code 75, without a stack trace.
    """


def is_passing(error: OSError) -> bool:
    """Whether the same operation may succeed later. False where the path itself is wrong, for example missing."""
    return error.errno not in LASTING and not isinstance(
        error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)
    )


def raise_if_passing(error: BaseException, name: object) -> None:
    """NotNowError if reading ``name`` failed for a reason that may pass; a parser's other errors mean damage.

    An OSError without an errno is a parser's own, such as h5py's of a file that is cut short.
    """
    if isinstance(error, OSError) and error.errno is not None and is_passing(error):
        raise NotNowError(f"{name}: {error.strerror}") from error
