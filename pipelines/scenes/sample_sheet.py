"""A sample in, contact_sheet.jpg out: some sequences of every split, one in each row, with their 2D keypoints."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from glot.human.joints import COMMON14_BONES, THREEDPW_2D
from glot.human.safe_pickle import load_pickle
from glot.pictures.contact_sheet import grid
from pipelines.scenes.sequence import annotation_file, image_folder
from pipelines.scenes.sequence_plan import SPLITS, PlannedSequence

ROWS, COLUMNS, SIDE = 4, 6, 240  # sequences of a split, pictures of a sequence, width and height of a picture in px
SURE = 0.3  # keypoints with a higher confidence are drawn
COLOURS = ((80, 255, 80), (80, 180, 255))  # BGR colours of the first and the second person
BONES = [(THREEDPW_2D.index(a), THREEDPW_2D.index(b)) for a, b in COMMON14_BONES if {a, b} <= set(THREEDPW_2D)]


def write_sample_sheet(out: Path, planned: list[PlannedSequence]) -> None:
    """Writes ``out``/contact_sheet.jpg."""
    shown = [sequence for split in SPLITS for sequence in [s for s in planned if s.split == split][:ROWS]]
    panels = [panel for sequence in shown for panel in _panels(out, sequence)]
    cv2.imwrite(str(out / "contact_sheet.jpg"), grid(panels, columns=COLUMNS))


def _panels(out: Path, sequence: PlannedSequence) -> list[np.ndarray]:
    """Pictures at equal intervals of the sequence, (SIDE, SIDE, 3) BGR, with keypoints; its name is in the first."""
    record = load_pickle(annotation_file(out, sequence))
    panels = []
    for frame in np.linspace(0, len(record["img_frame_ids"]) - 1, COLUMNS).astype(int):
        image: Any = cv2.imread(str(image_folder(out, sequence) / f"image_{frame:05d}.jpg"))
        scale = SIDE / image.shape[0]
        image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for person, colour in zip(record["poses2d"], COLOURS, strict=False):
            _draw_keypoints(image, person[frame], scale, colour)
        panels.append(image)
    panels[0][:18] //= 3
    cv2.putText(panels[0], sequence.name, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return panels


def _draw_keypoints(image: np.ndarray, keypoints: np.ndarray, scale: float, colour: tuple[int, int, int]) -> None:
    """Draws (3, 18) x, y px of the full picture, confidence."""
    x, y, confidence = keypoints
    points = np.round(np.stack([x, y], axis=1) * scale).astype(int).tolist()
    for a, b in BONES:
        if min(confidence[a], confidence[b]) > SURE:
            cv2.line(image, points[a], points[b], colour, 1, cv2.LINE_AA)
    for point, sure in zip(points, confidence, strict=True):
        if sure > SURE:
            cv2.circle(image, point, 2, colour, -1, cv2.LINE_AA)
