"""Rows come back by track and row number, from memory or from disk, in any order."""

import numpy as np
import pytest

from glot.people import spool
from glot.people.spool import Spool


@pytest.mark.parametrize("in_memory", [1 << 20, 100], ids=["memory", "disk"])
def test_rows_come_back_where_they_belong(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", in_memory)
    values = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    with Spool([4, 0, 5], 5) as rows:
        for number in np.random.default_rng(1).permutation(9)[:-1]:
            track, row = (0, number) if number < 4 else (2, number - 4)
            rows.put(track, int(row), values[number])
        assert rows.file._rolled == (in_memory == 100)  # type: ignore[attr-defined]
        written = np.concatenate([rows.written[0], rows.written[2]])
        assert written.sum() == 8 and not len(rows.written[1])
        for track, offset in ((0, 0), (2, 4)):
            numbers = np.flatnonzero(rows.written[track])[::-1]
            np.testing.assert_array_equal(rows.take(track, numbers), values[offset + numbers])
        missing = int(np.flatnonzero(~written)[0])
        with pytest.raises(AssertionError):
            rows.take(*((0, np.array([missing])) if missing < 4 else (2, np.array([missing - 4]))))
