"""Videos with people in them: the open body, drawn before a plain wall, walks across the picture."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from glot.body import load_body
from glot.drawing import draw_body
from glot.joints import SMPL_JOINTS
from glot.rotation import axis_angle_to_rotmat

SIZE = (256, 320)  # width, height: px
RATE = 10


def pictures(frames: int, *, speed: float = 0.05) -> list[NDArray[np.uint8]]:
    """RGB pictures of one person, arms down, who goes ``speed`` metres to the right from one to the next."""
    body = load_body()
    pose = torch.zeros(1, 24, 3)
    pose[0, 0, 0] = np.pi  # upright before the camera, whose y points down
    pose[0, SMPL_JOINTS.index("left_shoulder"), 2] = -1.2
    pose[0, SMPL_JOINTS.index("right_shoulder"), 2] = 1.2
    pose[0, SMPL_JOINTS.index("left_hip"), 0] = 0.3
    with torch.no_grad():
        vertices = body(axis_angle_to_rotmat(pose), torch.zeros(1, 10)).vertices[0].numpy()
    dressed = np.tile([0.35, 0.25, 0.5], (len(vertices), 1))
    dressed[vertices[:, 1] < vertices[:, 1].min() + 0.3] = [0.85, 0.65, 0.55]  # head
    width, height = SIZE
    wall = np.full((height, width, 3), (200, 205, 195), np.uint8)
    wall[int(0.75 * height) :] = (120, 100, 80)
    wall = cv2.GaussianBlur(wall, (0, 0), 2)
    intrinsics = np.array([[height, 0, width / 2], [0, height, height / 2], [0, 0, 1.0]])
    out = []
    for number in range(frames):
        place = np.array([speed * (number - frames / 2), 0.15, 2.9])
        out.append(draw_body(wall, vertices + place, body.faces, intrinsics, dressed))
    return out


def write_pictures(path: Path, shown: Iterable[NDArray[np.uint8]], *, turned: int = 0, rate: int = RATE) -> Path:
    """``turned`` is the rotation in the file's header, degrees counterclockwise: pictures are stored turned back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        for picture in shown:
            stored = np.ascontiguousarray(np.rot90(picture, -turned // 90))
            if stream.width != stored.shape[1]:  # the first one says how large the video is
                stream.height, stream.width = stored.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode())
    return path
