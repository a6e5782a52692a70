"""What a run says about a set."""

import pytest

from pipelines.extraction.messages import say_work
from pipelines.extraction.outcomes import DAMAGED, DONE, FAILED, Outcome


def test_a_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    say_work("video test", "3 new", 7, [], left=7, code="1.0")
    assert capsys.readouterr().out == "video test: 3 new; 7 units: 7 to do\n"


def test_a_later_run_says_what_it_passes_over_and_that_versions_mix(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {DONE: 3, DAMAGED: 2, FAILED: 1}
    outcomes = [Outcome(f"{kind}{n}", kind, code="1.0") for kind, count in kinds.items() for n in range(count)]
    say_work("video test", "1 gone, 3 as before", 7, outcomes, lost=1, left=3, code="1.1")
    assert capsys.readouterr().out.splitlines() == [
        "video test: 1 gone, 3 as before; 7 units: 3 done before, 2 damaged (--retry-skipped tries them again), "
        "1 failed before, the rows of 1 are lost, 3 to do",
        "video test: what is done was done by version 1.0, and the rest is done by 1.1; the manifest will name both",
    ]
    say_work("video test", "3 as before", 3, outcomes[:3], left=0, code="1.1")
    assert capsys.readouterr().out == "video test: 3 as before; 3 units: 3 done before, nothing to do\n"
