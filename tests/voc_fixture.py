"""Writes a tiny Pascal VOC in its genuine layout: annotations as XML, JPEGs, masks as PNGs with VOC's palette."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

WIDTH, HEIGHT = 200, 150


class Item(NamedTuple):
    """An object of a picture: an ellipse of a colour, with a void rim around it in the mask, as VOC has."""

    name: str
    centre: tuple[int, int]
    axes: tuple[int, int]
    colour: tuple[int, int, int]  # BGR
    difficult: str | None = "0"  # some of VOC's annotations leave the flags out
    truncated: str | None = "0"


def palette() -> bytes:
    """VOC's 256 colours, by its development kit's rule."""
    colours = bytearray()
    for value in range(256):
        red = green = blue = 0
        rest = value
        for shift in range(7, -1, -1):
            red |= (rest & 1) << shift
            green |= (rest >> 1 & 1) << shift
            blue |= (rest >> 2 & 1) << shift
            rest >>= 3
        colours += bytes((red, green, blue))
    return bytes(colours)


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """(H, W) uint8 as an 8-bit palette PNG; OpenCV can only write colours."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = labels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in labels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", palette()), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))


def write_picture(root: Path, name: str, items: Sequence[Item], *, segmented: int = 1) -> None:
    """Adds a picture to a VOC below ``root``; the mask of item i holds i + 1, and 255 around it."""
    for folder in ("Annotations", "JPEGImages", "SegmentationObject"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    picture = np.full((HEIGHT, WIDTH, 3), (40, 160, 60), np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    objects = ""
    for value, item in enumerate(items, 1):
        cv2.ellipse(picture, item.centre, item.axes, 0, 0, 360, item.colour, -1)
        cv2.ellipse(labels, item.centre, (item.axes[0] + 2, item.axes[1] + 2), 0, 0, 360, 255, -1)
        cv2.ellipse(labels, item.centre, item.axes, 0, 0, 360, value, -1)
        (x, y), (a, b) = item.centre, item.axes
        flags = "".join(
            f"\t\t<{flag}>{said}</{flag}>\n"
            for flag, said in (("difficult", item.difficult), ("truncated", item.truncated))
            if said is not None
        )
        part = "\t\t<part>\n\t\t\t<name>head</name>\n\t\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax>"
        part += "<ymax>2</ymax></bndbox>\n\t\t</part>\n"
        objects += (
            f"\t<object>\n\t\t<name>{item.name}</name>\n\t\t<pose>Unspecified</pose>\n{flags}"
            f"{part if item.name == 'person' else ''}\t\t<bndbox>\n"
            # Both ends belong to the box and pixels count from 1. VOC's order of sides varies, and some have decimals.
            f"\t\t\t<xmax>{x + a + 1}</xmax>\n\t\t\t<xmin>{x - a + 1}.0</xmin>\n"
            f"\t\t\t<ymax>{y + b + 1}</ymax>\n\t\t\t<ymin>{y - b + 1}</ymin>\n\t\t</bndbox>\n\t</object>\n"
        )
    (root / "Annotations" / f"{name}.xml").write_text(
        f"<annotation>\n\t<folder>VOC2012</folder>\n\t<filename>{name}.jpg</filename>\n\t<source>\n"
        "\t\t<database>The VOC2007 Database</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{WIDTH}</width>\n\t\t<height>{HEIGHT}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>{segmented}</segmented>\n{objects}</annotation>\n"
    )
    cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if segmented:
        write_palette_png(root / "SegmentationObject" / f"{name}.png", labels)


def write_voc(root: Path) -> Path:
    """A VOC with 3 objects to paste (red, blue and yellow, of three pictures), a white person, and what is no good."""
    write_picture(
        root,
        "2007_000032",
        [
            Item("person", (40, 75), (30, 50), (255, 255, 255)),
            Item("chair", (110, 75), (35, 40), (20, 20, 220)),  # red: the second object, the first to paste
            Item("chair", (175, 75), (20, 50), (0, 0, 0), difficult="1"),
        ],
    )
    write_picture(
        root,
        "2007_000039",
        [
            Item("tvmonitor", (60, 70), (50, 30), (220, 60, 20), difficult=None, truncated=None),  # blue
            Item("bottle", (150, 75), (30, 60), (0, 0, 0), truncated="1"),
            Item("bottle", (190, 10), (8, 8), (0, 0, 0)),  # too small
        ],
    )
    write_picture(root, "2007_000063", [Item("dog", (100, 75), (80, 20), (0, 220, 220))])  # yellow
    write_picture(root, "2007_000068", [Item("cat", (100, 75), (60, 60), (0, 0, 0))], segmented=0)
    return root
