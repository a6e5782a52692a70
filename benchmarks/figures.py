"""Where the figures of the benchmarks go: JSON files in benchmarks/out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glot.location import write_whole

OUT = Path(__file__).parent / "out"


def write_figures(path: Path, figures: Mapping[str, Any], *, show: bool = True) -> None:
    """Writes the JSON file and, with ``show``, prints it."""
    text = json.dumps(figures, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    if show:
        print(text, end="")
