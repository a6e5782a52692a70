"""CPU seconds and memory of all processes below this one, by what they are; read from /proc twice a second."""

import os
import threading
import time
from collections import defaultdict
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAUSE = 0.5  # s between two looks; what a process does after the last look at it is not counted


class ProcessTimes:
    """Looks at the processes while the with-block runs. ``kinds``: text in a process's command line -> its kind."""

    def __init__(self, kinds: dict[str, str], other: str) -> None:
        self.kinds, self.other = kinds, other
        self.kind_of: dict[int, str] = {}
        self.seconds: dict[int, float] = {}
        self.looks: list[tuple[float, dict[str, float]]] = []  # time.monotonic(), CPU seconds so far by kind
        self.peak_mb: dict[str, float] = {}  # by kind, of its largest process
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> "ProcessTimes":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def between(self, start: float, stop: float) -> dict[str, float]:
        """CPU seconds by kind between two times of ``time.monotonic()``, in any process of this machine."""
        first = next((look for time, look in reversed(self.looks) if time <= start), {})
        last = next((look for time, look in self.looks if time >= stop), self.looks[-1][1])
        return {kind: last[kind] - first.get(kind, 0.0) for kind in last}

    def _keep_looking(self) -> None:
        while True:
            ended = self.stop.wait(PAUSE)
            self._look()
            if ended:
                return

    def _look(self) -> None:
        for pid in _below(os.getpid()):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                peak = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            kind = next((kind for text, kind in self.kinds.items() if text in command), self.other)
            if kind != self.other or pid not in self.kind_of:  # a worker of Ray keeps the name of its first actor
                self.kind_of[pid] = kind
            self.seconds[pid] = (int(values[11]) + int(values[12])) / TICKS
            if peak:
                self.peak_mb[kind] = max(self.peak_mb.get(kind, 0.0), int(peak[0]) * 1024 / 1e6)
        total: dict[str, float] = defaultdict(float)
        for pid, seconds in self.seconds.items():
            total[self.kind_of[pid]] += seconds
        self.looks.append((time.monotonic(), dict(total)))


def _below(parent: int) -> list[int]:
    """The processes that this one, or one of them, has started."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [parent]
    for pid in found:
        found += children[pid]
    return found[1:]
