"""The backbones that there are, with what each needs, for people and as JSON. No network is loaded."""

from typing import Any

from glot.features.backbones.backbone_kinds import DEFAULT, OURS, broken_kinds, kinds, weights_at_home
from glot.features.backbones.blazepose_files import LANDMARK_FILE, SHA256
from glot.location import cache_folder


def list_backbones() -> dict[str, Any]:
    """{"backbones": [{name, summary, weights, ready, precisions, devices, crop_rules, first_guess, ours}], "broken"}.

    ``ready``: what a use of it would take now, or "" where something is missing. ``broken``: {name: why}, of other
    packages' entry points that cannot be used.
    """
    ours = {kind.name for kind in OURS}
    rows = []
    for name, kind in kinds().items():
        found = weights_at_home(kind)
        ready = str(found) if found else "" if kind.needs_weights or kind.takes_file else "comes with it"
        if name == "blazepose" and not (cache_folder() / LANDMARK_FILE).is_file():
            ready = f"fetched the first time ({len(SHA256)} files)"
        rows.append(
            {
                "name": f"{name}:FILE" if kind.takes_file else name,
                "summary": kind.summary,
                "weights": kind.weights,
                "needs_weights": kind.needs_weights,
                "ready": ready,
                "precisions": list(kind.precisions),
                "devices": list(kind.devices),
                "crop_rules": list(kind.crop_rules),
                "first_guess": kind.guesses,
                "ours": name in ours,
            }
        )
    return {"backbones": rows, "broken": dict(broken_kinds())}


def describe_backbones(found: dict[str, Any]) -> list[str]:
    """Lines for a terminal, of ``list_backbones``."""
    lines = ["--backbone NAME, of extraction and of prediction:"]
    for row in found["backbones"]:
        default = " (default of extraction)" if row["name"] == DEFAULT else ""
        lines += ["", f"{row['name']}{default}: {row['summary']}"]
        if row["weights"]:
            lines.append(f"  --weights     {row['weights']}")
        state = row["ready"] or (
            "give the file in the name" if not row["weights"] else "none found; give --weights FILE"
        )
        lines.append(f"  weights now   {state}")
        lines.append(f"  runs on       {' or '.join(row['devices'])}, in {', '.join(row['precisions'])}")
        if row["crop_rules"]:
            lines.append(f"  --crop-rule   {', '.join(row['crop_rules'])}; the first is the default")
        if row["first_guess"]:
            lines.append("  --first-guess also keeps its guess of the body")
        if not row["ours"]:
            lines.append("  from another package")
    for name, reason in found["broken"].items():
        lines += ["", f"{name}: cannot be used: {reason}"]
    return lines
