"""The YAML file beside an exported network: read as plain values; all that cannot be right is one short line."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from glot.errors import InputError, NotNowError
from glot.features.backbones.hmr2_crops import RULES
from glot.features.backbones.onnx_settings import OnnxSettings, read_settings, settings_file
from glot.human.crop import MEAN, STD
from tests.fixtures.places import ROOT


def settings_of(folder: Path, text: str | bytes) -> OnnxSettings:
    path = folder / "net.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(folder / "net.onnx")


def reason(folder: Path, text: str | bytes) -> str:
    """What is said about a file that is refused; always one line of a moderate length that starts with its path."""
    with pytest.raises(InputError) as error:
        settings_of(folder, text)
    said = str(error.value)
    assert said.startswith(f"{folder / 'net.yaml'}: ") and "\n" not in said
    said = said.removeprefix(f"{folder / 'net.yaml'}: ")
    assert 5 < len(said) < 600
    return said


def test_a_size_is_enough(tmp_path: Path) -> None:
    found = settings_of(tmp_path, "size: 224\n")
    assert (found.size, found.colour, found.mean, found.deviation, found.largest) == ((224, 224), "rgb", MEAN, STD, 1)
    assert (found.output, found.pooling, found.skip, found.channels, found.batch) == (None, "none", 0, None, None)
    assert found.crop_rule.size == 224 and found.crop_rule.follows_dataset and not found.crop_rule.blur


def test_the_example_of_the_module_and_its_values(tmp_path: Path) -> None:
    text = (ROOT / "glot" / "features" / "backbones" / "onnx_settings.py").read_text()
    example = [line[4:] for line in text.split('"""')[1].splitlines() if line.startswith("    ")]
    found = settings_of(tmp_path, "\n".join(example))
    assert set(yaml.safe_load("\n".join(example))) == set(OnnxSettings.__dataclass_fields__), "it shows every setting"
    assert (found.output, found.pooling, found.skip, found.batch) == ("patches", "quarters", 1, 1)
    assert found.crop_rule.margin == 1.2 and found.crop_rule.size == 224


@pytest.mark.parametrize("name", RULES)
def test_rules_with_a_name_are_those_of_hmr2_in_the_size_of_the_network(tmp_path: Path, name: str) -> None:
    rule, theirs = settings_of(tmp_path, f"size: [256, 192]\ncrop_rule: {name}\n").crop_rule, RULES[name]
    assert (rule.name, rule.margin, rule.widen, rule.blur) == (name, theirs.margin, theirs.widen, theirs.blur)
    assert rule.size == 256 and settings_of(tmp_path, f"size: 128\ncrop_rule: {name}\n").crop_rule.size == 128


def test_rules_of_ones_own(tmp_path: Path) -> None:
    def rule(text: str) -> tuple:
        found = settings_of(tmp_path, f"size: 64\ncrop_rule: {text}\n").crop_rule
        return found.margin, found.widen, found.blur

    assert rule("{margin: 2}") == (2.0, None, "")
    assert rule("{widen: [3, 4], blur: gaussian5}") == (1.0, (3, 4), "gaussian5")
    assert rule("{margin: 1.25, widen: [192, 256]}") == (1.25, (192, 256), "")


def test_one_number_stands_for_three(tmp_path: Path) -> None:
    found = settings_of(tmp_path, "size: 64\nmean: 127.5\ndeviation: 127.5\nlargest: 255\n")
    assert found.mean == found.deviation == (127.5,) * 3 and found.largest == 255


def test_the_file_has_the_name_of_the_network() -> None:
    assert settings_file(Path("a/resnet.v2.onnx")) == Path("a/resnet.v2.yaml")
    assert settings_file(Path("a/network")) == Path("a/network.yaml")


WRONG = {
    "": "holds no settings", "[1, 2]": "holds no settings", "hello": "holds no settings", "{}": "size is missing",
    "colour: rgb": "size is missing", "size: 224\ncolor: rgb": "'color' is no setting; there is batch, channels, col",
    "size: 224\n1: 2": "1 is no setting", "size: 224\nstored: {}": "is no setting",
    "size: 224px": "give px", "size: 0": "give px", "size: -3": "give px", "size: [1, 2, 3]": "give px",
    "size: [256.0, 192]": "give px", "size: true": "give px", "size:": "give px", "size: {a: 1}": "give px",
    "size: 8": "16 to 1024", "size: 1025": "16 to 1024", "size: 99999999999999999999": "16 to 1024",
    "size: 64\ncolour: grey": "'grey'; there is rgb, bgr", "size: 64\ncolour: [rgb]": "there is rgb, bgr",
    "size: 64\ncolour:": "None; there is rgb", "size: 64\npooling: max": "there is none, mean, first, quarters",
    "size: 64\nlargest: 100": "there is 1, 255", "size: 64\nlargest: true": "there is 1, 255",
    "size: 64\nchannels: 3": "there is first, last",
    "size: 64\nmean: [1, 2]": "three numbers", "size: 64\nmean: [1, 2, a]": "three numbers",
    "size: 64\nmean: [.nan, 0, 0]": "three numbers", "size: 64\nmean: [.inf, 0, 0]": "three numbers",
    "size: 64\nmean: [1.0e+30, 0, 0]": "three numbers", "size: 64\nmean:": "three numbers",
    "size: 64\nmean: [true, 0, 0]": "three numbers", "size: 64\nmean: {a: 1}": "three numbers",
    "size: 64\ndeviation: 0": "from 0.0001 to", "size: 64\ndeviation: [1, 1, -1]": "from 0.0001 to",
    "size: 64\ndeviation: 1.0e-300": "from 0.0001 to", "size: 64\ndeviation: .nan": "from 0.0001 to",
    "size: 64\nskip: -1": "give 0 to", "size: 64\nskip: 1.5": "give 0 to", "size: 64\nskip: true": "give 0 to",
    "size: 64\nskip: 99999": "give 0 to", "size: 64\nbatch: 0": "give 1 to", "size: 64\nbatch: many": "give 1 to",
    "size: 64\noutput: 3": "give the name of an output", "size: 64\noutput: [a]": "give the name",
    "size: 64\ncrop_rule: tight": "'tight'; there is wham, 4dhumans, gvhmr, or {margin, widen, blur}",
    "size: 64\ncrop_rule: 1.2": "there is wham", "size: 64\ncrop_rule: [1]": "there is wham",
    "size: 64\ncrop_rule: {scale: 1}": "there is wham", "size: 64\ncrop_rule: {margin: a}": "give a number",
    "size: 64\ncrop_rule: {margin: 0}": "0.1 to 10", "size: 64\ncrop_rule: {margin: .nan}": "give a number",
    "size: 64\ncrop_rule: {margin: true}": "give a number", "size: 64\ncrop_rule: {widen: 3}": "width and a height",
    "size: 64\ncrop_rule: {widen: [0, 1]}": "width and a height", "size: 64\ncrop_rule: {blur: box}": "gaussian",
    "size: 64\ncrop_rule: {widen: [1, 9999999]}": "width and a height", "size: 64\ncrop_rule: {blur:}": "gaussian",
    "size: 64\nmean: [1": "YAML", "size: 64\n\tskip: 1": "line 2", "a: b: c": "line 1", "size: 2020-13-45": "YAML",
    "size: !!int ''": "YAML", "size: !!timestamp x": "YAML", "size: !!bool x": "YAML", "{[1]: 2}": "YAML",
    "size: 64\n---\nsize: 65": "YAML", "size: *unknown": "YAML", "? {a: 1}\n: 2": "YAML",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_values_that_cannot_be_right(tmp_path: Path, text: str) -> None:
    assert WRONG[text] in reason(tmp_path, text)


@pytest.mark.parametrize("tag", [
    "!!python/object/apply:os.mkdir [here]", "!!python/object/new:os.mkdir [here]", "!!python/name:os.system",
    "!!python/module:os", "!!python/object:glot.errors.InputError {}", "!!python/tuple [1, 2]",
])  # fmt: skip
def test_nothing_in_the_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert "python" in reason(tmp_path, f"size: {tag}\n")
    assert os.listdir(tmp_path) == ["net.yaml"]


def test_enormous_values_are_short_in_the_message(tmp_path: Path) -> None:
    many = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else '1, 2, 3'}]" for i in range(30))
    bomb = "size: 64\nmean:\n" + "".join(f"- {line.split(': ', 1)[1]}\n" for line in many.splitlines())
    for text in (
        bomb, bomb.replace("mean:", "colour:"), bomb.replace("mean:", "output:"), bomb.replace("mean:", "size2:"),
        f"size: 64\nskip: 0x{'f' * 16000}", f"size: 0x{'f' * 16000}", f"size: {'9' * 5000}",
        f"size: 64\nmean: 0x{'f' * 16000}", f"size: 64\ncrop_rule: {{margin: 0x{'f' * 16000}}}",
        f"size: 64\ncolour: {'r' * 16000}", f"{'k' * 16000}: 1", f"size: {'[' * 3000}",
        "size: &a [*a, *a]", "size: 64\nmean: &m [*m, *m, *m]", "size: 64\noutput: \"a\\nb\"\nskip: -1",
        b"size: \xff\xfe\x00", bytes(1000), b"size: 64 #" + b"x" * (1 << 14),
    ):  # fmt: skip
        reason(tmp_path, text)


def test_any_change_to_a_file_is_read_or_refused(tmp_path: Path) -> None:
    drawn = random.Random(0)
    good = "size: [256, 192]\ncrop_rule: {margin: 1.2, blur: gaussian}\nmean: [0.5, 0.5, 0.5]\npooling: mean\nskip: 1\n"
    pieces = [*"{}[]:-\n\t~?03.a#'>|", "!!", "&a ", "*a", "1e999", "0x"]
    read = 0
    for _ in range(300):
        text = good
        for _ in range(drawn.randint(1, 2)):
            place = drawn.randrange(len(text))
            text = text[:place] + drawn.choice(pieces) + text[place + drawn.randint(0, 2) :]
        try:
            found: Any = settings_of(tmp_path, text)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            read += 1
            assert isinstance(found.identity(), dict)
    assert 0 < read < 295


def test_a_file_that_cannot_be_read_now_may_be_readable_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yaml").write_text("size: 64\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(NotNowError, match=r"net.yaml: Permission denied"):
        read_settings(tmp_path / "net.onnx")
