"""The backbones that there are, with what each needs, for people and as JSON. No network is loaded."""

from typing import Any

from glot.features.backbones.backbone_kinds import (
    DEFAULT,
    OURS,
    BackboneKind,
    broken_kinds,
    entries,
    kinds,
    weights_at_home,
)
from glot.features.backbones.blazepose_files import LANDMARK_FILE
from glot.location import cache_folder


def list_backbones() -> dict[str, Any]:
    """{"backbones": [one of ``_row`` each], "broken": {name: why}}, ours first.

    ``broken``: other packages' entry points that cannot be used.
    """
    return {"backbones": [_row(kind) for kind in kinds().values()], "broken": dict(broken_kinds())}


def _row(kind: BackboneKind) -> dict[str, Any]:
    """``ready``: the weights that a use of it would take, "" where a user must give them. ``package``: "" for ours."""
    entry = entries().get(kind.name) if kind not in OURS else None
    return {
        "name": f"{kind.name}:FILE" if kind.takes_file else kind.name,
        "summary": kind.summary,
        "weights": kind.weights,
        "needs_weights": kind.needs_weights,
        "ready": _ready(kind),
        "precisions": list(kind.precisions),
        "devices": list(kind.devices),
        "crop_rules": list(kind.crop_rules),
        "first_guess": kind.guesses,
        "package": (entry.dist.name if entry.dist else entry.module) if entry else "",
    }


def _ready(kind: BackboneKind) -> str:
    if (found := weights_at_home(kind)) is not None:
        return str(found)
    if kind.needs_weights or kind.takes_file:
        return ""
    if kind.name != "blazepose":
        return "come with it"
    cached = cache_folder() / LANDMARK_FILE
    return str(cached) if cached.is_file() else "fetched the first time"


def describe_backbones(found: dict[str, Any]) -> list[str]:
    """Lines for a terminal, of ``list_backbones``."""
    lines = ["--backbone NAME, of extraction and of prediction:"]
    for row in found["backbones"]:
        default = " (default of extraction)" if row["name"] == DEFAULT else ""
        lines += ["", f"{row['name']}{default}: {row['summary']}"]
        if row["weights"]:
            lines.append(f"  --weights     {row['weights']}")
        missing = "none found; give --weights FILE" if row["needs_weights"] else "those in FILE"
        lines.append(f"  weights now   {row['ready'] or missing}")
        lines.append(f"  runs on       {' or '.join(row['devices'])}, in {', '.join(row['precisions'])}")
        if row["crop_rules"]:
            lines.append(f"  --crop-rule   {', '.join(row['crop_rules'])}; the first is the default")
        if row["first_guess"]:
            lines.append("  --first-guess also keeps its guess of the body")
        if row["package"]:
            lines.append(f"  from          the package {row['package']}")
    for name, reason in found["broken"].items():
        lines += ["", f"{name}: cannot be used: {reason}"]
    return lines
