"""Pre-commit guard: fails when one of the files given is larger than 2 MB."""

import sys
from pathlib import Path

LIMIT_MB = 2


def too_large(paths: list[str]) -> list[str]:
    """The paths above the limit, with their sizes."""
    sizes = {path: Path(path).stat().st_size / 1e6 for path in paths if Path(path).is_file()}
    return [f"{path} ({size:.1f} MB)" for path, size in sizes.items() if size > LIMIT_MB]


if __name__ == "__main__":
    found = too_large(sys.argv[1:])
    for line in found:
        print(f"{line}: above {LIMIT_MB} MB; data and weights do not belong in git", file=sys.stderr)
    sys.exit(bool(found))
