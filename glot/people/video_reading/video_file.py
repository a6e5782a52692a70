"""A path in; the packets of its video out. Failures of a disk or a store are told from damage in the video."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av

from glot.errors import NotNowError, is_passing
from glot.people.files import open_file

# A video is read in the format of its suffix. If FFmpeg guessed it, a playlist could lead to other files and hosts.
# None of these formats opens another file: playlists (hls, concat, asx, dash) are left out for that reason, and in mov
# FFmpeg follows no references to other files unless it is told to.
VIDEOS = {
    ".avi": "avi",
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".3gp", ".3g2"), "mov"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".ts", ".m2ts", ".mts"), "mpegts"),
    **dict.fromkeys((".mpg", ".mpeg"), "mpeg"),
    ".flv": "flv",
    **dict.fromkeys((".wmv", ".asf"), "asf"),
}
READ_AT_ONCE = 256 << 10  # bytes; each read of a file object takes the interpreter's lock


class Unreadable(Exception):
    """A picture or a video that cannot be read; the message is the reason."""


def video_frame(image: str) -> tuple[str, int] | None:
    """("walk.avi", 12) for "walk.avi#12", picture 12 (from 0) of the video. None for the path of a picture."""
    name, _, number = image.rpartition("#")
    return (name, int(number)) if number.isdecimal() and Path(name).suffix.lower() in VIDEOS else None


def reason_of(error: Exception) -> str:
    """FFmpeg's message without its error number and path."""
    return getattr(error, "strerror", None) or type(error).__name__


class VideoFile:
    """An open file with at least one video stream; its packets in the order in which they are stored.

    ``entry`` says what the file was when it was listed (``open_file``). Raises Unreadable if the file is no video, and
    NotNowError, here and later, if a disk or a store fails: FFmpeg takes that for the end of the video.
    """

    def __init__(self, path: Path, *, threads: int = 1, entry: Mapping[str, Any] | None = None) -> None:
        self.path, self.threads, self.entry = path, threads, entry
        self._open()

    def _open(self) -> None:
        self.broken = ""  # why there are no more packets, if the file is damaged there
        try:
            self.source = open_file(self.path, self.entry)
        except OSError as error:
            if is_passing(error):
                raise NotNowError(f"{self.path}: {reason_of(error)}") from error
            raise Unreadable(reason_of(error)) from None
        try:
            format = VIDEOS[self.path.suffix.lower()]
            self.container = av.open(self.source, "r", format=format, buffer_size=READ_AT_ONCE)
        except (av.FFmpegError, ValueError, OSError, NotNowError) as error:
            self._check_source()
            self.source.close()
            raise Unreadable(f"not a readable video ({reason_of(error)})") from None
        if not self.container.streams.video:
            self.close()
            raise Unreadable("no pictures in this video")
        self.stream = self.container.streams.video[0]
        self.decoder = self.stream.codec_context
        # "explode": an error, instead of painting over broken parts. H.264's decoder marks every picture that it paints
        # over; its errors would also be about what no picture needs, such as notes (SEI) and references before a cut.
        self.decoder.options = {} if self.decoder.name == "h264" else {"err_detect": "explode"}
        self.decoder.thread_count = self.threads
        if self.threads > 1:
            self.stream.thread_type = "AUTO"
        # With B-frames, pictures are stored in another order than they are shown in.
        self.reordered = bool(self.decoder.has_b_frames)
        # AVI and ASF store no times of display, so the order of reordered pictures is known to the decoder only.
        self.untimed = self.reordered and self.container.format.name in ("avi", "asf")

    @property
    def indexed(self) -> bool:
        """Whether the file says where each picture is, so that none can be lost without notice."""
        return self.container.format.name.startswith(("mov", "avi"))

    @property
    def frames(self) -> int:
        """The number of pictures by the header, without those that are not to be shown; 0 if it gives none."""
        index = getattr(self.stream, "index_entries", ())
        if self.container.format.name.startswith("mov") and len(index):  # in a fragmented file it is empty at first
            return sum(not entry.is_discard for entry in index)
        return self.stream.frames

    def again(self) -> "VideoFile":
        """The same file, opened once more, for one thread."""
        return VideoFile(self.path, entry=self.entry)

    def rewind(self) -> None:
        """Opens the file again, at its beginning."""
        self.close()
        self._open()

    def packets(self) -> Iterator[av.Packet]:
        """From the current place to the end of the file, or to where it is ``broken``."""
        try:
            for packet in self.container.demux(self.stream):
                if packet.size or packet.pos is not None:  # the last one is empty, for the decoder
                    yield packet
        except (av.FFmpegError, ValueError, OSError, NotNowError) as error:
            self._check_source()
            self.broken = reason_of(error)
        self._check_source()

    def seek(self, time: int) -> bool:
        """Goes to a place before the picture that is shown at ``time``, in units of the stream, if the format can."""
        try:
            self.container.seek(time, stream=self.stream, backward=True)
        except (av.FFmpegError, ValueError, OSError, NotNowError):
            self._check_source()
            return False
        return True

    def close(self) -> None:
        self.container.close()
        self.source.close()

    def _check_source(self) -> None:
        """Raises the failure of the disk or of the store that FFmpeg took for the end of the video."""
        failure = self.source.failure
        if isinstance(failure, NotNowError):
            raise failure
        if failure is not None:
            raise NotNowError(f"{self.path}: {failure}") from failure
