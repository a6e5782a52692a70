"""The sources of a dataset in; the plan with what is new, changed and gone among them out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from glot.location import location
from glot.people.frame_boxes import VideoBoxes
from pipelines.decoders.clips import Decoder, Unit
from pipelines.decoders.source_entries import with_bytes
from pipelines.decoders.unit_cuts import cut_pictures
from pipelines.decoders.video_boxes import boxes_of, hash_of, is_shared
from pipelines.jobs.job_progress import say
from pipelines.sets.differences import Difference, difference
from pipelines.sets.plan import Plan
from pipelines.sets.plan_file import PlanWriter, written_plan

Run = Callable[[list[list[Unit]]], Iterable[list[Unit]]]  # applies ``plan_sources`` to chunks of sources, in any order


def update_plan(
    folder: Path,
    plan: Plan,
    decoder: Decoder,
    root: Path,
    split: str,
    *,
    run: Run,
    suspects: Collection[str] = frozenset(),
    found: Sequence[Unit] | None = None,
    again: Collection[str] = frozenset(),
) -> tuple[Plan, Difference]:
    """Lists the sources, and appends a generation to the ``plan`` of the set in ``folder`` if some differ from it.

    ``suspects`` are the names of sources in which something could not be read; ``found`` is the list of sources, if it
    is there already; ``again`` are the names of sources that are planned again, although they have not changed.
    InputError where the data is missing, NotNowError where it cannot be listed now.
    """
    found = decoder.find(root, split, plan.before(suspects)) if found is None else found
    if note := getattr(found, "note", ""):
        say(f"{root}: {note}")
    changes = difference(plan, found, again)
    boxes = getattr(found, "boxes", None)
    note = {"tracks": boxes.note} if boxes and boxes.note else {}
    if changes or plan.note != note:
        generation = plan.generation + 1
        append(folder, generation, changes, run, decoder.tracks, note=note)
        plan = Plan.of_generations(folder, [*plan.files, generation])
    return plan, changes


def append(
    folder: Path, generation: int, changes: Difference, run: Run, tracks: Path | None, *, note: Mapping[str, Any]
) -> None:
    """Writes the plan of a generation: the units of new and changed sources, with the boxes in ``tracks``, and the
    names of those that are gone."""
    chunks = list(changes.chunks())
    order = {source.name: number for number, source in enumerate(source for chunk in chunks for source in chunk)}
    with written_plan(folder, generation, note) as writer:
        for name in changes.gone:
            writer.add_gone(name)
        if chunks and tracks is not None and is_shared(tracks):
            _add_with_boxes(writer, run(chunks), order, [source.images for source in changes.found], tracks)
            return
        for units in run(chunks) if chunks else ():
            for unit in units:
                writer.add(unit, order[unit.name])


def plan_sources(decoder: Decoder, root: Path, sources: Sequence[Unit]) -> list[Unit]:
    """The units of some sources. Everything that a plan reads in the sources themselves is read here.

    So are boxes, where each video has a file of its own.
    """
    planned: list[Unit] = []
    for source in sources:
        if decoder.cut is not None:
            units = decoder.cut(root, source)
        else:
            whole = with_bytes(root, source)
            units = cut_pictures(whole) if decoder.cuttable else [whole]
        if file := source.facts.get("boxes_in"):
            ((_, boxes),) = boxes_of([source.images], location(file))
            units = list(_joined(units, boxes))
        planned += units
    return planned


def in_turn(decoder: Decoder, root: Path) -> Run:
    """Plans one chunk after the other, in this process."""
    return lambda chunks: (plan_sources(decoder, root, chunk) for chunk in chunks)


def _add_with_boxes(
    writer: PlanWriter, planned: Iterable[list[Unit]], order: Mapping[str, int], videos: Sequence[str], tracks: Path
) -> None:
    """Adds units with their boxes, video by video as they come from the file of all ``videos``."""
    by_video: dict[str, list[Unit]] = {}
    for units in planned:
        for unit in units:
            by_video.setdefault(unit.images, []).append(unit)
    for video, boxes in boxes_of(videos, tracks, by_video.keys()):
        entry = {"path": tracks.name, "hash": hash_of(boxes)}
        for unit in _joined(by_video[video], boxes):
            writer.add(replace(unit, sources=(unit.sources[0], entry)), order[unit.name])


def _joined(units: Sequence[Unit], boxes: VideoBoxes | str) -> Iterator[Unit]:
    """The units of a video with the boxes in their ranges, or with the reason why the video has none."""
    for unit in units:
        if isinstance(boxes, str):
            yield replace(unit, facts={**unit.facts, "no_boxes": boxes})
            continue
        facts = dict(unit.facts)
        if unit.start == 0:  # what is counted once for the whole video
            facts |= {"people": len(boxes.people), "left_out": boxes.left_out}
        inside = {person: found.between(unit.start, unit.stop) for person, found in boxes.people.items()}
        inside = {person: found for person, found in inside.items() if len(found.frames)}
        yield replace(unit, facts=facts, boxes=inside)
