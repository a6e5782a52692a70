"""A source in; its units out: ranges of about UNIT_FRAMES pictures, so that long videos are done by many workers."""

from dataclasses import replace
from pathlib import Path

from glot.errors import NotNowError
from glot.location import is_remote
from glot.people.video import Unreadable, estimated_frames, scan
from pipelines.decoders.clips import Unit

UNIT_FRAMES = 2000
UNREAD = "unread"  # in the facts of a source that could not be read now; until it is done, each run plans it again
LONGEST_WHOLE = 3000  # pictures of a source that is not cut
SMALL_BYTES = 16 << 20  # a stored video of less is not opened to be planned: this would fetch it twice
TYPICAL_FRAME_BYTES = 6000  # of a video of 1.5 Mbit/s


def cut_video(root: Path, source: Unit) -> list[Unit]:
    """The units of a video, cut at key frames. What was read in it is in ``facts``, so that it is not read again.

    A short video is one unit, and so is one that cannot be read, or not now; decoding it reports why.
    """
    path, entry = root / source.images, source.sources[0]
    size = entry["bytes"]
    if is_remote(root) and size < SMALL_BYTES:
        return [replace(source, frames=size // TYPICAL_FRAME_BYTES)]
    frames = 0
    try:
        frames = estimated_frames(path, entry)
        if 0 < frames <= LONGEST_WHOLE:  # 0 where the header does not say: browsers record without it
            return [replace(source, frames=frames)]
        timeline, cuts = scan(path, UNIT_FRAMES, entry)
    except Unreadable:
        return [replace(source, frames=frames)]
    except NotNowError:
        return [replace(source, frames=frames, facts={**source.facts, UNREAD: True})]
    if timeline.frames <= LONGEST_WHOLE:
        cuts = cuts[:1]
    units = []
    for cut, after in zip(cuts, (*cuts[1:], None), strict=True):
        stop = after.number if after else None
        units.append(
            replace(
                source,
                frames=(timeline.frames if stop is None else stop) - cut.number,
                start=cut.number,
                stop=stop,
                facts={**source.facts, **timeline._asdict(), "time": cut.time},
            )
        )
    return units


def cut_pictures(source: Unit) -> list[Unit]:
    """The units of a sequence of picture files. (A video file of a dataset would be read from its start each time.)"""
    if source.frames <= LONGEST_WHOLE or not any("files" in entry for entry in source.sources):
        return [source]
    count = round(source.frames / UNIT_FRAMES)
    starts = [source.frames * number // count for number in range(count)]
    return [
        replace(source, frames=stop - start, start=start, stop=stop if stop < source.frames else None)
        for start, stop in zip(starts, (*starts[1:], source.frames), strict=True)
    ]
