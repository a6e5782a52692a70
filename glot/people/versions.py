"""What tells one content of a source from another: size and ETag, or size and time of the last change."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

# What stores call the version of an object's content, the most exact first.
VERSIONS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "updated", "mtime", "created")


class Version(NamedTuple):
    """What tells one content of a source from another: its size, and its ETag in a store or its time on a disk."""

    bytes: int
    mark: str  # the ETag without quotes, or the time of the last change, ns

    def agrees(self, entry: Mapping[str, Any]) -> bool:
        """Whether ``entry`` {"bytes", and "etag" or "modified"} of a list of sources is about this content."""
        mark = entry.get("etag", entry.get("modified", self.mark))
        return self.bytes == entry.get("bytes", self.bytes) and self.mark == str(mark).strip('"')


def version_of(info: Mapping[str, Any]) -> Version:
    """The version by what a store says of an object: fsspec's ``info``, or an entry of ``find(detail=True)``."""
    mark = next((info[name] for name in VERSIONS if info.get(name)), "")
    if isinstance(mark, datetime):  # fsspec's store in memory gives times as such for one file, as seconds in a list
        mark = mark.timestamp()
    return Version(int(info["size"]), str(mark).strip('"'))


def local_version(facts: os.stat_result) -> Version:
    """The version of a file on a disk."""
    return Version(facts.st_size, str(facts.st_mtime_ns))
