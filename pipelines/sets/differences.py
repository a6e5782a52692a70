"""The plan of earlier runs and the sources of today in; new, changed and gone sources out."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pipelines.decoders.clips import Unit
from pipelines.decoders.source_entries import same_sources
from pipelines.sets.plan import Plan

SOURCES_IN_CHUNK = 64


@dataclass(frozen=True)
class Difference:
    """How the sources of today differ from the plan."""

    found: Sequence[Unit]  # the sources of today, each as one whole unit
    new: list[int]  # numbers of sources in ``found``
    changed: list[int]
    gone: list[str]  # names of sources that are in the plan only
    same: int  # how many are as before

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)

    def describe(self) -> str:
        """One line, such as "3 new, 1 changed, 1 gone, 196 as before"."""
        numbers = {"new": len(self.new), "changed": len(self.changed), "gone": len(self.gone), "as before": self.same}
        return ", ".join(f"{number} {what}" for what, number in numbers.items() if number)

    def chunks(self) -> Iterator[list[Unit]]:
        """The new and the changed sources in their order, some at a time."""
        numbers = iter(sorted([*self.new, *self.changed]))
        while chunk := [self.found[number] for number in islice(numbers, SOURCES_IN_CHUNK)]:
            yield chunk


def difference(plan: Plan, found: Sequence[Unit], again: Collection[str] = frozenset()) -> Difference:
    """Compares the entries of the sources' files, source by source. Those named in ``again`` count as changed."""
    before = plan.sources()
    new, changed, same = [], [], 0
    for number, source in enumerate(found):
        text = before.pop(source.name, None)
        if text is None:
            new.append(number)
        elif source.name in again:
            changed.append(number)
        elif json.dumps(source.sources) == text or same_sources(source.sources, json.loads(text)):
            same += 1
        else:
            changed.append(number)
    return Difference(found, new, changed, list(before), same)
