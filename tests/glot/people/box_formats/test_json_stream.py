"""JsonStream: the values of json.loads, wherever the blocks of the file begin; what is not JSON is refused."""

import io
import json
from typing import Any

import pytest

from glot.people.box_formats import json_stream
from glot.people.box_formats.json_stream import JsonStream, Twice

CONTENT = {
    "a": [1, -2.5e-3, 12345678.25, 1e300, 0.1, True, False, None],
    'quote " and \\ and é and 😀': {"": [], "{": {"]": "}"}},
    "long": ["x" * 300, "\n\t\u0001", "\ud83d\ude00"],
    "empty": {},
    "numbers": [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 123456789012345678901234567890],
    "last": 7,
}


def members(text: str | bytes) -> dict[str, Any]:
    stream = JsonStream(io.BytesIO(text if isinstance(text, bytes) else text.encode()))
    found = {key: stream.value() for key in stream.members()}
    stream.end()
    return found


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64, 65, 1 << 20])
@pytest.mark.parametrize("layout", [{}, {"indent": 3}, {"ensure_ascii": False}, {"separators": (",", ":")}])
def test_values_are_those_of_json_loads(block: int, layout: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    text = json.dumps(CONTENT, **layout)
    if layout.get("ensure_ascii") is False:
        text = text.replace("\ud83d\ude00", "😀")
    assert members(text) == json.loads(text, parse_int=float) and list(members(text)) == list(CONTENT)
    assert members(b"\xef\xbb\xbf" + text.encode()) == members(text), "with the mark that Windows writes"


def test_a_member_may_be_read_member_by_member() -> None:
    stream = JsonStream(io.BytesIO(b' { "a" : {"b": [1], "c": {}} , "d": 2 } '))
    found = []
    for key in stream.members():
        if stream.peek() == "{":
            found += [(key, inner, stream.value()) for inner in stream.members()]
        else:
            found.append((key, stream.value()))
    assert found == [("a", "b", [1.0]), ("a", "c", {}), ("d", 2.0)]


class Counted(io.BytesIO):
    read_bytes, largest = 0, 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.read_bytes += len(found)
        self.largest = max(self.largest, len(found))
        return found


def test_a_file_is_read_once_and_in_small_blocks() -> None:
    text = json.dumps({str(number): [number] * 5000 for number in range(300)}).encode()
    file = Counted(text)
    stream, longest = JsonStream(file), 0
    for _ in stream.members():
        stream.value()
        longest = max(longest, len(stream.text))
    assert file.read_bytes == len(text) > 5 << 20 and file.largest <= 1 << 20 and longest < 3 << 20


def test_what_cannot_be_a_number_or_a_text_does_not_end_the_reading() -> None:
    found = members(b'{"a": [NaN, -Infinity, 1e999], "b": ' + b"9" * 5000 + b', "\xff\xfe": 1, "c": {"x": 1, "x": 2}}')
    assert str(found["a"]) == "[nan, -inf, inf]" and found["b"] == float("inf")
    assert isinstance(found["c"], Twice) and found["c"] == "x" and "\udcff\udcfe" in found


@pytest.mark.parametrize("block", [3, 1 << 20])
@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"a"', '{"a":', '{"a": 1', '{"a": 1,}', '{"a": 1 "b": 2}', '{a: 1}', '{"a": [1, 2}', '{"a": nul}',
     '{"a": "b}', '{"a": 1} {}', '{"a": 1}}', '{"a": 1.}', '{"a": tru', '{"a": "\n"}', '{5: 1}', '{"a": \\u00e9}'],
)  # fmt: skip
def test_what_is_not_an_object_in_json_is_refused(text: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", block)
    with pytest.raises(ValueError, match=r"\w"):
        members(text)


def test_the_place_of_a_mistake_is_known_in_later_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "BLOCK", 100)
    text = '{"a": "' + "x" * 5000 + '", "b": [1 2], "c": ' + "[1, 2]" * 10 + "}"
    stream = JsonStream(io.BytesIO(text.encode()))
    with pytest.raises(ValueError, match="delimiter"):
        for _ in stream.members():
            stream.value()
    assert stream.at == text.index("2]")


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(RecursionError):
        members('{"a": ' + "[" * 200_000)
