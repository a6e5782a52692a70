"""A set that earlier code began to import or has imported in; the same set with its outcomes as today out.

Earlier code kept a record for each part, ``.extraction/00000.json``.
"""

import json
from pathlib import Path

from pipelines.imports.shares import share_id
from pipelines.jobs.bookkeeper import DONE
from pipelines.jobs.job_progress import say
from pipelines.sets.earlier_sets import code_of, earlier_records
from pipelines.sets.outcomes import Outcome, merge, read_outcomes
from pipelines.sets.settings import list_set, read_file, remove_files


def continue_earlier(folder: Path) -> None:
    """Takes over what earlier code imported into ``folder``, which must be held (``open_set``).

    If this is interrupted, the next call does it again.
    """
    files = list_set(folder)
    records = earlier_records(files)
    if not records:
        return
    outcomes, code = read_outcomes(folder, files), code_of(folder, files)
    taken = 0
    for name in records:
        try:
            outcome = _outcome(read_file(folder / name), code)
        except (ValueError, TypeError, LookupError):
            say(f"{folder / name}: not readable; this part is imported again")
            continue
        outcomes.setdefault(outcome.id, outcome)
        taken += 1
    merge(folder, outcomes, files)
    remove_files(folder, records)
    say(f"{folder}: continues an import of earlier code, {taken} {'part' if taken == 1 else 'parts'}")


def _outcome(text: bytes, code: str) -> Outcome:
    record = json.loads(text)
    start, stop = record["sources"][0]["rows"]
    return Outcome(share_id(start, stop), DONE, record["part"], record["counts"], record["skipped"], stop - start, code)
