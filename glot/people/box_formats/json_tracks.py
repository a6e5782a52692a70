"""A JSON file of boxes in, about one video or many; the boxes of one video after the other out.

One video: {"person": {"frames": [0, 1, ...], "bbox": [[left, top, width, height], ...]}}. Many: {"video": {"person":
...}}, where "video" is its path below the root, or its file name if no other video has that name. Other members of
a person are passed over.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from glot.errors import InputError
from glot.people.box_formats.json_stream import JsonStream, Twice
from glot.people.frame_boxes import FrameBoxes, VideoBoxes, boxes_of_lists, video_boxes

FIELDS = ("frames", "bbox")


class Entry(NamedTuple):
    """A member of the file: the people of a video; or one person, where the file is about one video."""

    people: dict[str, FrameBoxes]
    person: dict[str, Any]  # "frames" and "bbox" as they are in the file; {} if the member is about a video
    error: str  # what is wrong, or ""


def iterate_json(file: BinaryIO, path: Path, videos: Sequence[str]) -> Iterator[tuple[str, VideoBoxes | InputError]]:
    """Each of ``videos`` once, with its boxes or with what is wrong with them: in the order of the file, then those
    that the file does not have. Only one video is in memory.

    ``path`` is for messages. InputError if the file is not JSON, if an entry fits several videos, if two entries fit
    one video, or if the file is about one video and there are several.
    """
    names, stream = _Names(path, videos), JsonStream(file)
    one, key = _OneVideo(), ""
    try:
        if stream.peek() != "{":
            raise ValueError("not an object with people")
        for key in stream.members():
            entry = _entry(stream)
            if entry.person and (len(videos) == 1 or not names.has(key)):
                one.add(key, entry)
            elif (video := names.video(key)) is not None:
                yield video, _result(entry, f"{path}: {_shown(video)}")
            else:
                one.others.append(key)
        stream.end()
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        place = f"character {stream.at}" + (f", in or after {_shown(key)}" if key else "")
        raise InputError(f"{path}: holds no boxes in JSON: {reason} ({place})") from None
    if one.people and not names.found and len(videos) > 1:
        raise InputError(
            f"{path}: is about one video, but there are {len(videos)}; put each video's people into an object under "
            "the video's path below the root"
        )
    if not names.found and (one.people or not one.others):
        yield from ((video, one.result(f"{path}: {_shown(video)}")) for video in videos)
        return
    for video in names.missing():
        yield video, InputError(f"{path}: has no boxes for {_shown(video)}")


class _OneVideo:
    """The people of a file that is about one video."""

    def __init__(self) -> None:
        self.people: dict[str, FrameBoxes | None] = {}
        self.others: list[str] = []  # members that are no people
        self.error = ""

    def add(self, person: str, entry: Entry) -> None:
        error = entry.error or (f"has person {_shown(person)} twice" if person in self.people else "")
        self.people[person] = None
        try:
            self.people[person] = _person(entry.person, person)
        except ValueError as wrong:
            error = error or str(wrong)
        self.error = self.error or error

    def result(self, what: str) -> VideoBoxes | InputError:
        error = f"{_shown(self.others[0])} is no person with frames and bbox" if self.others else self.error
        people = {name: boxes for name, boxes in self.people.items() if boxes is not None}
        return _result(Entry(people, {}, error), what)


class _Names:
    """Which video an entry belongs to."""

    def __init__(self, path: Path, videos: Sequence[str]) -> None:
        self.path, self.videos = path, dict.fromkeys(videos)
        self.by_name = defaultdict[str, list[str]](list)
        for video in self.videos:
            self.by_name[PurePosixPath(video).name].append(video)
        self.found: dict[str, str] = {}  # video -> key of its entry
        self.unclear: set[str] = set()  # keys that fit several videos

    def has(self, key: str) -> bool:
        return key in self.videos or key in self.by_name

    def video(self, key: str) -> str | None:
        """The video that an entry belongs to, or None. InputError if the video had an entry before."""
        fitting = [key] if key in self.videos else self.by_name.get(key, [])
        if len(fitting) != 1:
            self.unclear |= {key} if fitting else set()
            return None
        (video,) = fitting
        if video in self.found:
            keys = sorted({key, self.found[video]})
            both = " and ".join(map(_shown, keys)) if len(keys) == 2 else f"{_shown(key)} twice"
            raise InputError(f"{self.path}: has two entries for {_shown(video)}: {both}; remove one")
        self.found[video] = key
        return video

    def missing(self) -> list[str]:
        """The videos without an entry. InputError if there is an entry that could belong to several of them."""
        without = [video for video in self.videos if video not in self.found]
        for key in sorted(self.unclear):
            if set(without) & set(fitting := self.by_name[key]):
                raise InputError(
                    f"{self.path}: {_shown(key)} could be {some_of(fitting)}; use their paths below the root as keys"
                )
        return without


def some_of(videos: Sequence[str]) -> str:
    """The first videos of a list in words."""
    first = [_shown(video) for video in videos[:3]]
    return " or ".join(first) + (f" or {len(videos) - 3} others" if len(videos) > 3 else "")


def _entry(stream: JsonStream) -> Entry:
    """Reads a member of the file, one of its own members after the other."""
    if stream.peek() != "{":
        stream.value()
        return Entry({}, {}, "is not an object with people")
    people: dict[str, FrameBoxes] = {}
    person: dict[str, Any] = {}
    twice = wrong = ""
    seen: set[str] = set()
    for name in stream.members():
        value = stream.value()
        if name in seen:
            twice = f"has {_shown(name)} twice"
        seen.add(name)
        if name in FIELDS and not isinstance(value, dict):
            person[name] = value
            continue
        try:
            people[name] = _person(value, name)
        except ValueError as error:
            wrong = wrong or str(error)
    return Entry({}, person, twice) if person else Entry(people, {}, twice or wrong)


def _person(value: Any, name: str) -> FrameBoxes:
    if isinstance(value, Twice):
        raise ValueError(f"person {_shown(name)} has {_shown(value)} twice")
    if not isinstance(value, dict):
        raise ValueError(f"person {_shown(name)} is not an object with frames and bbox")
    if missing := [field for field in FIELDS if field not in value]:
        raise ValueError(f"person {_shown(name)} has no {' and no '.join(missing)}")
    return boxes_of_lists(value["frames"], value["bbox"], _shown(name))


def _result(entry: Entry, what: str) -> VideoBoxes | InputError:
    if entry.person:
        return InputError(f"{what}: has frames and bbox, but no person above them")
    if entry.error:
        return InputError(f"{what}: {entry.error}")
    try:
        return video_boxes(entry.people)
    except UnicodeEncodeError:
        return InputError(f"{what}: the name of a person is not UTF-8")


def _shown(text: str) -> str:
    """A name as one line of text that can be printed."""
    safe = text.encode(errors="replace").decode()
    return safe if safe.isprintable() else repr(safe)
