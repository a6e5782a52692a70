"""The arrows: pipelines -> glot <- tuning, inside glot only towards earlier layers, Ray only at the edges."""

import ast
from pathlib import Path

import pytest

from tests.fixtures.places import ROOT

LAYERS = (
    {"errors"},
    {"cli", "joints", "rotation", "camera", "crop", "config", "location", "schema", "safe_pickle", "tracking"}
    | {"ray_session", "curves", "video", "seeking", "boxes", "track_files", "spool"},
    {"onnx_network", "blazepose_files"},
    {"blazepose"},
    {"body", "backbone", "windows", "store", "metrics", "scene", "run_state"},
    {"model", "linear_probe", "drawing", "tracks"},
    {"losses", "checkpoint", "sliding", "motion"},
    {"official", "cost", "smoothing", "detection"},
    {"inference", "scoring", "sampler", "saves", "whitening", "publish", "motion_files", "bvh", "gltf"}
    | {"contact_sheet", "camera_fit", "pose_fit", "people"},
    {"evaluate", "clip", "attention", "overlay", "reconstruction"},
    {"attention_pictures", "comparison", "capture"},
    {"predict", "render", "view", "train_loop"},
    {"train_ray"},
)
FILES = sorted(path for package in ("glot", "pipelines", "tuning") for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    tops = {name.split(".")[0] for name in imported(path)}
    forbidden = {"glot": {"pipelines", "tuning"}, "pipelines": {"tuning"}, "tuning": {"pipelines"}}[package]
    assert not tops & (forbidden | {"tests", "smplx"})
    if package == "glot" and path.stem not in {"train_ray", "ray_session"}:
        assert "ray" not in tops


@pytest.mark.parametrize("path", sorted((ROOT / "glot").glob("*.py")), ids=lambda p: p.stem)
def test_layers_inside_glot_only_look_down(path: Path) -> None:
    if path.stem == "__init__":
        return
    depth = {name: level for level, names in enumerate(LAYERS) for name in names}
    assert path.stem in depth, f"glot/{path.name} has no layer; give it one in this test"
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == "glot":
            other = rest.split(".")[0]
            # Two modules of one layer may know each other only in the lowest ones, where there is no cycle to make.
            assert depth[other] < depth[path.stem] or depth[other] == depth[path.stem] <= 2, f"{path.stem} -> {other}"


def test_no_rooms_without_a_name() -> None:
    assert not [path for path in FILES if path.stem in {"utils", "common", "helpers", "misc"}]
