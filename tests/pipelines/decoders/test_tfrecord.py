"""TFRecord: published checksums, damaged files, and messages as protobuf writes them."""

import random
import struct
from pathlib import Path

import pytest

from pipelines.decoders.tfrecord import (
    Malformed,
    Span,
    bytes_spans,
    crc32c,
    example,
    floats,
    integers,
    masked_crc,
    read_records,
)
from tests.fixtures.insta_variety import Example, frame, plain_crc32c


def test_checksums_of_the_published_vectors() -> None:
    assert crc32c(b"123456789") == 0xE3069283 and masked_crc(b"123456789") == 0xC78AB0E5
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43  # RFC 3720, B.4


@pytest.mark.parametrize("size", [1, 3, 8, 2047, 2048, 2049, 3071, 4096, 5000, 7 * 1024, 20_001])
def test_lanes_side_by_side_give_the_checksum_of_the_plain_loop(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert crc32c(data) == plain_crc32c(data)
    assert crc32c(bytes(size)) == plain_crc32c(bytes(size))


def three(path: Path) -> tuple[list[bytes], bytes]:
    payloads = [b"first", random.Random(0).randbytes(5000), b"third"]
    path.write_bytes(b"".join(map(frame, payloads)))
    return payloads, path.read_bytes()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    payloads, _ = three(tmp_path / "a")
    found = list(read_records(tmp_path / "a"))
    assert [entry.payload for entry in found] == payloads and [entry.number for entry in found] == [0, 1, 2]
    assert not any(entry.fault for entry in found)
    (tmp_path / "empty").write_bytes(b"")
    assert list(read_records(tmp_path / "empty")) == []


def test_a_damaged_payload_costs_its_record_only(tmp_path: Path) -> None:
    payloads, content = three(tmp_path / "a")
    at = len(frame(payloads[0])) + 12 + 777
    (tmp_path / "a").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    first, second, third = read_records(tmp_path / "a")
    assert (first.payload, third.payload) == (payloads[0], payloads[2])
    assert second.fault == "wrong checksum" and not second.payload and not second.last


def test_a_damaged_length_hides_the_rest_and_is_reported(tmp_path: Path) -> None:
    payloads, content = three(tmp_path / "a")
    at = len(frame(payloads[0]))
    (tmp_path / "a").write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    first, second = read_records(tmp_path / "a")
    assert first.payload == payloads[0] and second.last and "checksum of the length" in second.fault


@pytest.mark.parametrize("cut", [1, 4, 5, 9, 12, 20])
def test_a_cut_file_gives_its_whole_records(tmp_path: Path, cut: int) -> None:
    payloads, content = three(tmp_path / "a")
    (tmp_path / "a").write_bytes(content[:-cut])
    found = list(read_records(tmp_path / "a"))
    assert [entry.payload for entry in found[:2]] == payloads[:2]
    assert found[2].last and "file cut" in found[2].fault


def test_an_absurd_length_with_a_right_checksum_reads_nothing(tmp_path: Path) -> None:
    head = struct.pack("<Q", 1 << 60)
    (tmp_path / "a").write_bytes(head + struct.pack("<I", masked_crc(head)) + b"x" * 100)
    (entry,) = read_records(tmp_path / "a")
    assert "file cut" in entry.fault and entry.last


def test_examples_as_protobuf_writes_them() -> None:
    message = Example()
    features = message.features.feature
    features["raw"].bytes_list.value.extend([b"", b"\xff\xd8", b"x" * 300])
    features["x"].float_list.value.extend([0.5, -1.0, float("inf")])
    features["n"].int64_list.value.extend([0, 1, -1, 2**62, -(2**63)])
    features["none"].float_list.value.extend([])
    data = message.SerializeToString()
    found = example(data)
    assert set(found) == {"raw", "x", "n", "none"}
    assert [data[a:b] for a, b in bytes_spans(data, found["raw"])] == [b"", b"\xff\xd8", b"x" * 300]
    assert floats(data, found["x"]).tolist() == [0.5, -1.0, float("inf")]
    assert integers(data, found["n"]).tolist() == [0, 1, -1, 2**62, -(2**63)]
    assert floats(data, found["none"]).shape == (0,)
    with pytest.raises(Malformed, match="a list of integers, expected floats"):
        floats(data, found["n"])


def test_unpacked_lists_are_read_too() -> None:
    inner = b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", 2.5)  # field 1, four bytes each
    data = b"\x12" + bytes([len(inner)]) + inner
    assert floats(data, Span(0, len(data))).tolist() == [1.5, 2.5]
    data = b"\x1a\x04\x08\x05\x08\x06"
    assert integers(data, Span(0, len(data))).tolist() == [5, 6]


def test_bytes_that_are_no_message_are_malformed_and_reading_them_ends() -> None:
    whole = Example()
    whole.features.feature["x"].float_list.value.extend(range(50))
    data = whole.SerializeToString()
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(data[: rng.randrange(1, len(data))])
        broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            for span in example(bytes(broken)).values():
                floats(bytes(broken), span)
        except Malformed:
            refused += 1
    assert refused > 200
