"""Tasks of packing in, parts out, packed by many workers: the ``run`` of ``publish`` on Ray."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glot.errors import NotNowError
from pipelines.jobs.bookkeeper import DONE, Result
from pipelines.jobs.pool_worker import Item, PoolWorker
from pipelines.jobs.worker_pool import PoolJob, run_pool
from pipelines.sets.packing import PackTask, pack_part


class PackParts(PoolWorker):
    """Packs parts."""

    def prepare(self, arguments: Mapping[str, Any], shared: Any) -> None:
        self.folder: Path = arguments["folder"]

    def items(self, task: Mapping[str, Any]) -> list[Item]:
        (key,) = task["keys"]
        return [Item(str(key), 1, pickle.loads(task["part"]))]

    def work(self, item: Item) -> Result:
        return Result(item.key, DONE, 1, 0, pack_part(self.folder, item.content))


def packed(folder: Path, tasks: Sequence[PackTask], what: str) -> list[dict[str, Any]]:
    """The parts, in the order of the tasks. Ray must be connected. NotNowError if some could not be written."""
    summary = run_pool(
        PoolJob(
            worker=PackParts,
            arguments={"folder": folder},
            tasks=[{"keys": [str(number)], "part": pickle.dumps(task)} for number, task in enumerate(tasks)],
            frames=len(tasks),
            counted="parts",
            what=what,
            devices="cpu",
        )
    )
    results = {int(result.key): result for result in summary.results}
    for number in range(len(tasks)):
        result = results.get(number)
        if result is None or result.kind != DONE:
            raise NotNowError(
                f"{folder}: a part cannot be packed: {result.reason if result else 'no worker came back'}"
            )
    return [results[number].value for number in range(len(tasks))]
