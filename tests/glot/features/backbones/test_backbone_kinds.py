"""What backbones there are: ours and those of packages, installed as a user would; broken packages end nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glot.errors import InputError
from glot.features.backbones.backbone_kinds import (
    OURS,
    BackboneChoice,
    BackboneKind,
    check_precision,
    kind_of,
    kinds,
    needed_weights,
)
from glot.features.backbones.listing import describe_backbones, list_backbones
from tests.fixtures.places import ROOT
from tests.glot.test_cli import HEAVY

PAGE = (ROOT / "docs" / "backbones.md").read_text()
KIND = "from glot.features.backbones.backbone_kinds import BackboneKind\nKIND = BackboneKind"
BROKEN = {  # name of the entry point -> (module with KIND, what is said about it)
    "raising": ("import a_library_that_is_not_there", "ModuleNotFoundError: No module named 'a_library_that_is_not"),
    "failing": ("1 / 0", "ZeroDivisionError: division by zero"),
    "leaving": ("import sys; sys.exit('goodbye\\nand more')", "SystemExit: goodbye"),
    "empty": ("", "AttributeError: module 'package_empty' has no attribute 'KIND'"),
    "number": ("KIND = 3", "package_number:KIND is no BackboneKind"),
    "other": (f"{KIND}('mine', '', 'a:b')", "package_other:KIND calls itself mine; the entry point must have the same"),
    "colon": (f"{KIND}('a:b', '', 'a:b')", "ValueError: 'a:b' is no name of a backbone"),
    "float8": (f"{KIND}('float8', '', 'a:b', precisions=('float8',))", "ValueError: precisions ('float8',) of a"),
    "devices": (f"{KIND}('devices', '', 'a:b', devices='gpu')", "ValueError: devices 'gpu' of a backbone"),
    "resnet50": (f"{KIND}('resnet50', 'a thief', 'a:b')", "a backbone of this project has this name"),
    "onnx": ("raise SystemExit", "a backbone of this project has this name"),
}


def write_package(site: Path, package: str, name: str, code: str) -> None:
    """A package of one module with one entry point, as pip lays it out."""
    site.mkdir(exist_ok=True)
    (site / f"{package}.py").write_text(code + "\n")
    about = site / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[glot.backbones]\n{name} = {package}:KIND\n")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip installed the package that docs/backbones.md describes."""
    folder, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    for name, code in re.findall(
        r"\*\*(glot-colours/[\w./-]+)\*\*.*?^```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    (folder / "glot-colours" / "glot_colours" / "__init__.py").touch()
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(folder / "glot-colours")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("no setuptools to build a package with")
    assert not done.returncode, done.stderr
    return site


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of BROKEN, a name that two packages add, and two whose networks cannot be loaded."""
    site = tmp_path_factory.mktemp("broken")
    for name, (code, _) in BROKEN.items():
        write_package(site, f"package_{name}", name, code)
    for package in ("first", "second"):
        write_package(site, f"package_{package}", "twice", f"{KIND}('twice', '', 'a:b')")
    leaves_a_trace = "open('imported', 'w').close()\n"
    nowhere = f"{leaves_a_trace}{KIND}('nowhere', 'a kind', 'not.there:load')"
    write_package(site, "package_nowhere", "nowhere", nowhere)
    loose = f"{KIND}('loose', 'a kind', 'package_loose:load', weights='a file', needs_weights=True)\nload = vars"
    write_package(site, "package_loose", "loose", loose)
    return site


def run(*words: str, sites: tuple[Path, ...], home: Path) -> tuple[str, set[str]]:
    """What a command prints, and the packages that it imports. It must end well, and write no more than that."""
    paths = os.pathsep.join(map(str, (ROOT, *sites)))
    environment = {**os.environ, "PYTHONPATH": paths, "GLOT_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-X", "importtime", *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment)
    lines = ended.stderr.splitlines()
    assert ended.returncode == 0 and all(line.startswith("import time:") for line in lines), ended.stderr[-2000:]
    return ended.stdout, {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


def test_a_package_is_listed_and_nothing_heavy_is_imported(colours: Path, broken: Path, tmp_path: Path) -> None:
    shown, imported = run("-m", "glot.info", "backbones", sites=(colours, broken), home=tmp_path)
    assert (tmp_path / "imported").is_file() and not imported & {*HEAVY, "onnx"}
    listed = re.split(r"\n\n", shown)
    (mine,) = [part for part in listed if part.startswith("colours: mean colours of 8 x 8 cells of a crop\n")]
    assert "runs on       cpu, in float32" in mine and "from          the package glot-colours" in mine
    for name, (_, reason) in BROKEN.items():
        assert any(part.startswith(f"{name}: cannot be used: {reason}") for part in listed), (name, shown)
    several = (
        "twice: cannot be used: several packages add it (package_first:KIND, package_second:KIND); uninstall all but"
    )
    assert any(part.startswith(several) for part in listed)
    assert (
        shown.index("resnet50 (default") < shown.index("colours: ") < shown.index("colon: ") < shown.index("raising: ")
    )
    assert "a thief" not in shown


def test_the_list_as_json(colours: Path, broken: Path, tmp_path: Path) -> None:
    shown, imported = run("-m", "glot.info", "backbones", "--json", sites=(colours, broken), home=tmp_path)
    found = json.loads(shown)
    rows = {row["name"]: row for row in found["backbones"]}
    assert list(rows)[:4] == ["resnet50", "blazepose", "hmr2", "onnx:FILE"] and not imported & HEAVY
    assert set(rows) - set(list(rows)[:4]) == {"colours", "nowhere", "loose"}
    assert set(found["broken"]) == {*BROKEN, "twice"}
    assert rows["colours"] == {
        "name": "colours", "summary": "mean colours of 8 x 8 cells of a crop", "weights": "", "needs_weights": False,
        "ready": "come with it", "precisions": ["float32"], "devices": ["cpu"], "crop_rules": [], "first_guess": False,
        "package": "glot-colours",
    }  # fmt: skip
    assert (rows["hmr2"]["ready"], rows["loose"]["ready"], rows["onnx:FILE"]["ready"]) == ("", "", "")
    assert rows["hmr2"]["crop_rules"] == ["wham", "4dhumans", "gvhmr"] and rows["hmr2"]["first_guess"] is True
    assert all(row["package"] == "" for row in list(rows.values())[:4])


def test_help_names_a_package_without_importing_it(colours: Path, broken: Path, tmp_path: Path) -> None:
    for module in ("pipelines.extract_features", "glot.predict"):
        shown, imported = run("-m", module, "--help", sites=(colours, broken), home=tmp_path)
        words = " ".join(shown.replace("│", " ").split())
        assert "onnx:FILE, colours" in words or re.search(r"onnx:FILE, [\w, ]*colours", words)
        assert not imported & HEAVY and not (tmp_path / "imported").exists()


def test_a_package_is_loaded_by_its_name(colours: Path, broken: Path, tmp_path: Path) -> None:
    code = """
import json
import numpy as np
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.extractor import Extractor

backbone = load_backbone("colours")
crops = np.zeros((2, 128, 128, 3), np.uint8)
crops[1, :16, 16:32] = 10, 20, 30
features = Extractor(backbone, device="cuda")(crops)
said = {}
for name in ("raising", "leaving", "twice", "nowhere", "loose", "colours:file", "nobody"):
    try:
        load_backbone(name)
    except InputError as error:
        said[name] = str(error)
print(json.dumps([backbone.describe(), features[1].tolist(), load_backbone(weights=Path("random")).hash, said]))
"""
    code = "from pathlib import Path\n" + code
    shown, _ = run("-c", code, sites=(colours, broken), home=tmp_path)
    described, features, ours, said = json.loads(shown)
    assert described == {
        "name": "colours", "weights": "none", "hash": "0000000000000001", "feature_size": 192
    }  # fmt: skip
    assert features == [0, 0, 0, 10, 20, 30] + [0] * 186
    assert len(ours) == 16, "the name resnet50 is ours whatever is installed"
    wanted = {
        "raising": "the package that adds it cannot be used: ModuleNotFoundError",
        "leaving": "the package that adds it cannot be used: SystemExit: goodbye",
        "twice": "the package that adds it cannot be used: several packages add it",
        "nowhere": "not.there:load cannot be imported (No module named 'not')",
        "loose": "its package gives a dict, no Backbone",
        "colours:file": "colours takes no file here; leave out :file",
        "nobody": "not known; choose resnet50, blazepose, hmr2, onnx:FILE, ",
    }
    assert said.keys() == wanted.keys()
    for name, words in wanted.items():
        assert words in said[name] and said[name].startswith(f"--backbone {name}") and "\n" not in said[name]


def test_the_list_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))

    def ready() -> dict[str, str]:
        return {row["name"]: row["ready"] for row in list_backbones()["backbones"]}

    before = ready()
    assert (before["resnet50"], before["blazepose"], before["hmr2"]) == ("come with it", "fetched the first time", "")
    assert "none found; give --weights FILE" in "\n".join(describe_backbones(list_backbones()))
    (tmp_path / "body").mkdir()
    (tmp_path / "cache").mkdir()
    files = {name: tmp_path / "body" / name for name in ("hmr2a.ckpt", "spin_model_checkpoint.pth.tar")}
    files["pose_landmark_full.tflite"] = tmp_path / "cache" / "pose_landmark_full.tflite"
    for path in files.values():
        path.touch()
    after = ready()
    assert (after["hmr2"], after["resnet50"], after["blazepose"]) == tuple(map(str, files.values()))
    assert all(line in "\n".join(describe_backbones(list_backbones())) for line in after.values())


def test_info_has_nothing_else_to_ask_for(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOT_HOME": str(tmp_path)}
    for words, reason in {("backbone",): "there is only backbones", ("backbones", "--prune"): "leave out"}.items():
        command = [sys.executable, "-m", "glot.info", *words]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
        assert ended.returncode == 2 and reason in ended.stderr and ended.stderr.count("\n") == 1


WRONG: dict[str, dict[str, Any]] = {
    "--backbone vit: not known; choose resnet50": {"name": "vit"},
    "--backbone : not known": {"name": ""},
    "--backbone onnx: give the file, too": {"name": "onnx"},
    "--backbone onnx:: give the file, too": {"name": "onnx:"},
    "--backbone resnet50:a.pth: resnet50 takes no file here": {"name": "resnet50:a.pth"},
    "--weights a.pth: onnx brings its own": {"name": "onnx:a.onnx", "weights": Path("a.pth")},
    "--weights random: is for resnet50; hmr2 needs": {"name": "hmr2", "weights": Path("random")},
    "--crop-rule wham: resnet50 has one rule only": {"crop_rule": "wham"},
    "--crop-rule tight: hmr2 has wham, 4dhumans, gvhmr": {"name": "hmr2", "crop_rule": "tight"},
    "--first-guess: resnet50 guesses no bodies; hmr2 does": {"first_guess": True},
}


@pytest.mark.parametrize("words", WRONG)
def test_choices_that_do_not_go_together(words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        BackboneChoice(**WRONG[words])


def test_choices_and_what_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (BackboneChoice().kind.name, BackboneChoice().file, BackboneChoice().rule_name) == ("resnet50", None, "")
    chosen = BackboneChoice("onnx:in/a:b.onnx")
    assert chosen.file == Path("in/a:b.onnx") and chosen.absolute_name == f"onnx:{tmp_path}/in/a:b.onnx"
    assert BackboneChoice("hmr2").absolute_name == "hmr2" and BackboneChoice("hmr2").rule_name == "wham"
    assert BackboneChoice("hmr2", crop_rule="gvhmr").rule_name == "gvhmr"


def test_weights_that_a_backbone_needs_are_found_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"--backbone hmr2: needs .* give it as --weights; .*body holds none of"):
        needed_weights(BackboneChoice("hmr2"))
    (tmp_path / "body").mkdir()
    (tmp_path / "body" / "hmr2a.ckpt").touch()
    assert needed_weights(BackboneChoice("hmr2")) == tmp_path / "body" / "hmr2a.ckpt"
    assert needed_weights(BackboneChoice("hmr2", Path("mine.ckpt"))) == Path("mine.ckpt")
    assert needed_weights(BackboneChoice("resnet50")) is None


def test_precisions_and_kinds() -> None:
    assert list(kinds())[: len(OURS)] == [kind.name for kind in OURS]
    for kind in OURS:
        assert kind_of(kind.name) is kind and kind_of(f"{kind.name}:file") is kind
        assert callable(kind.loader()) and "\n" not in kind.summary
        for precision in kind.precisions:
            check_precision(kind, precision)
    with pytest.raises(InputError, match="must be one of float32, bfloat16, int8"):
        check_precision(OURS[0], "float64")
    with pytest.raises(InputError, match="is for resnet50; hmr2 runs in float32 or bfloat16"):
        check_precision(kind_of("hmr2"), "int8")
    wrongs: list[dict[str, Any]] = [
        {"name": ""},
        {"name": "a:b"},
        {"devices": ()},
        {"devices": ("tpu",)},
        {"precisions": "float32"},
    ]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="backbone"):
            BackboneKind(**{"name": "mine", "summary": "", "load": "a:b", **wrong})


def test_the_exported_network_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its example as it is, but for the pretrained weights, which are on the network."""
    code, settings = re.search(
        r"\*\*export.py\*\*:\n\n```python\n(.*?)```.*?```yaml\n(.*?)```", PAGE, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    assert 'resnet18(weights="DEFAULT")' in code
    code = code.replace('"DEFAULT"', "None")
    (tmp_path / "resnet18.yaml").write_text(settings)
    code += """
import numpy as np
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.extractor import Extractor
from glot.human.crop import normalise
backbone = load_backbone("onnx:resnet18.onnx")
crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
with torch.no_grad():
    wanted = network(normalise(torch.from_numpy(crops))).numpy()
np.testing.assert_allclose(Extractor(backbone)(crops), wanted, atol=1e-4 * np.abs(wanted).max())
assert (backbone.feature_size, backbone.crop_rule.margin) == (512, 1.2)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
