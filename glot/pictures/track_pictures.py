"""A track of a feature set, its predicted bodies and its truth in; the bodies over its pictures and from the side out.

N frames of a track, V vertices. Bodies are drawn over the full picture, with the crop's camera converted to it.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import open_part, parts
from glot.features.store import FeatureStore, Track
from glot.features.windows import usual_step
from glot.human.body import Body
from glot.human.camera import CROP_SIZE, FOCAL_LENGTH, full_image_translation
from glot.human.crop import crop_matrix, keypoints_to_crop
from glot.human.joints import COMMON14, COMMON14_BONES
from glot.models.smpl_params import SMPLParams
from glot.people.video import Unreadable, Videos, video_frame
from glot.pictures.drawing import BODY_COLOUR, Picture, draw_body, side_view, sideways
from glot.scoring.metrics import HIPS
from glot.scoring.track_errors import BODIES_AT_ONCE, Truth

PREDICTED, TRUE = BODY_COLOUR, (0.80, 0.72, 0.55)  # colours of bodies, RGB 0-1
ORANGE = (225, 110, 20)  # colour of the true joints in side views, RGB
RAISED = 0.05  # m from the middle of a side view up to the pelvis
BLOCK = 16  # frames whose bodies are posed together, which is several times faster than one by one


class TrackRenderer:
    """Draws the bodies of one track, frame by frame. ``i`` is the row among the frames of ``truth``, from 0."""

    def __init__(
        self, store: FeatureStore, body: Body, params: SMPLParams, truth: Truth, images: list[str], root: Path
    ) -> None:
        rows = truth.rows
        self.body, self.params, self.truth = body, params, truth
        self.frame_index = truth.frame_index
        self.fps = float(store.fps[rows[0]]) / usual_step(self.frame_index)  # rows a second
        self.boxes, self.scales = store.bbox[rows], store.crop_scale[rows]
        self.pictures = Pictures(root, images)
        self._blocks: dict[bool, tuple[int, NDArray, NDArray]] = {}  # true body? -> block, vertices, joints
        self.true_cam: torch.Tensor | None = None
        if truth.smpl is not None:
            joints = joints_in_pieces(body.joints, truth.smpl)
            keypoints = keypoints_to_crop(store.keypoints2d[rows], self.boxes, self.scales)
            self.true_cam = torch.from_numpy(fit_cam(joints, keypoints)).float()

    def __len__(self) -> int:
        return len(self.frame_index)

    def with_bodies(self, params: SMPLParams) -> "TrackRenderer":
        """A renderer of other predictions for the same frames; pictures and truth are shared."""
        other = copy.copy(self)
        other.params, other._blocks = params, {}
        return other

    def posed(self, i: int, *, true: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vertices (V, 3) and the 14 joints (14, 3) of frame i: metres from the body's origin, camera frame."""
        number, vertices, joints = self._blocks.get(true, (-1, np.empty(0), np.empty(0)))
        if number != i // BLOCK:
            params = self.truth.smpl if true else self.params
            assert params is not None
            rows = slice(i // BLOCK * BLOCK, (i // BLOCK + 1) * BLOCK)
            with torch.no_grad():
                output = self.body(params.rotmats[rows], params.betas[rows])
            vertices, joints = output.vertices.numpy(), output.joints14.numpy()
            self._blocks[true] = (i // BLOCK, vertices, joints)
        return vertices[i % BLOCK], joints[i % BLOCK]

    def crop(self, i: int, size: int) -> tuple[Picture, NDArray[np.float64]]:
        """The crop of frame i that the backbone saw, (size, size, 3), and the map (2, 3) from px of the picture."""
        to_crop = crop_matrix(self.boxes[i], float(self.scales[i]), size=size)
        return np.asarray(cv2.warpAffine(self.pictures[i], to_crop, (size, size)), np.uint8), to_crop

    def full_picture(self, i: int, height: int) -> tuple[Picture, NDArray[np.float64]]:
        """The picture of frame i, scaled to ``height`` and an even width, and the map (2, 3) from px of the picture."""
        full_height, full_width = self.pictures.size
        scale = height / full_height
        width = round(full_width * scale) // 2 * 2
        scaled = cv2.resize(self.pictures[i], (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(scaled, np.uint8), np.array([[width / full_width, 0, 0], [0, scale, 0]])

    def overlay(
        self,
        i: int,
        panel: Picture,
        to_panel: NDArray[np.float64],
        *,
        true: bool = False,
        colours: NDArray[np.floating] | None = None,
    ) -> Picture:
        """The body of frame i over ``panel``, a view of the picture; ``to_panel`` (2, 3) maps its px to the panel's.

        ``colours`` (V, 3), RGB 0-1, replace the one colour of a predicted or true body.
        """
        cams = self.true_cam if true else self.params.cam
        assert cams is not None
        height, width = self.pictures.size
        side = float(self.boxes[i, 2] * self.scales[i])
        focal = FOCAL_LENGTH * side / CROP_SIZE  # the crop's, so that the body looks the same in the full picture
        box = torch.tensor([[self.boxes[i, 0], self.boxes[i, 1], side]])
        transl = full_image_translation(cams[i : i + 1], box, width=width, height=height, focal=focal)[0].numpy()
        intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return draw_body(
            panel,
            self.posed(i, true=true)[0] + transl,
            self.body.faces,
            np.concatenate([to_panel, [[0, 0, 1]]]) @ intrinsics,
            np.array(TRUE if true else PREDICTED) if colours is None else colours,
        )

    def side_view(
        self, i: int, size: int, *, true: bool = False, colours: NDArray[np.floating] | None = None
    ) -> Picture:
        """The predicted body of frame i from the camera's right, with the true joints as orange bones at its pelvis.

        ``colours`` (V, 3) as in ``overlay``. ``true``: the true body instead, without bones.
        """
        vertices, joints14 = self.posed(i, true=true)
        pelvis = joints14[list(HIPS)].mean(axis=0)
        colours = np.array(TRUE if true else PREDICTED) if colours is None else colours
        panel = side_view(vertices - pelvis, self.body.faces, size, colours, raised=RAISED)
        if not true and len(self.truth.joints[i]) == len(COMMON14) and self.truth.scored[i]:
            joints, intrinsics = sideways(
                self.truth.joints[i] - self.truth.joints[i][list(HIPS)].mean(axis=0), size, raised=RAISED
            )
            pixels = joints @ intrinsics.T
            pixels = np.round(pixels[:, :2] / pixels[:, 2:]).astype(int)
            for a, b in COMMON14_BONES:
                start, end = (tuple(pixels[COMMON14.index(name)].tolist()) for name in (a, b))
                cv2.line(panel, start, end, ORANGE, 2, cv2.LINE_AA)
        return panel


def fit_cam(joints: NDArray, keypoints: NDArray) -> NDArray[np.float64]:
    """Weak-perspective cameras (N, 3: s, tx, ty) that bring joints (N, J, 3) m onto keypoints (N, J, 3) in crop units.

    For the ground truth, which has no such camera. Least squares of s (x + tx) and s (y + ty) over the joints
    whose confidence is above 0. A frame with fewer than two such joints takes the camera of the nearest frame with two.
    InputError if no frame has two.
    """
    cams = np.full((len(joints), 3), np.nan)
    for i, (xyz, points) in enumerate(zip(joints, keypoints, strict=True)):
        seen = points[:, 2] > 0
        if seen.sum() < 2:
            continue
        xy, target, count = xyz[seen, :2].astype(np.float64), points[seen, :2], int(seen.sum())
        system = np.zeros((2 * count, 3))
        system[:count, 0], system[:count, 1] = xy[:, 0], 1
        system[count:, 0], system[count:, 2] = xy[:, 1], 1
        s, a, b = np.linalg.lstsq(system, target.T.reshape(-1), rcond=None)[0]
        if s > 0:
            cams[i] = s, a / s, b / s
    fitted = np.flatnonzero(np.isfinite(cams[:, 0]))
    if len(fitted) == 0:
        raise InputError("no frame of this track has two known 2D joints, so the true body cannot be placed")
    rows, after = np.arange(len(cams)), np.searchsorted(fitted, np.arange(len(cams)))
    earlier, later = fitted[(after - 1).clip(0)], fitted[after.clip(max=len(fitted) - 1)]
    return cams[np.where(np.abs(rows - earlier) <= np.abs(later - rows), earlier, later)]


@torch.no_grad()
def joints_in_pieces(
    joints_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], params: SMPLParams
) -> NDArray[np.float32]:
    """(N, J, 3) m: ``joints_of``, a method of a Body, of all bodies; what it needs in between stays small."""
    pieces = zip(params.rotmats.split(BODIES_AT_ONCE), params.betas.split(BODIES_AT_ONCE), strict=True)
    return torch.cat([joints_of(*piece) for piece in pieces]).numpy()


class Pictures:
    """The pictures of a track, in order: files below ``root``, or frames of a video (``video#frame``). Upright, RGB.

    InputError for a picture that cannot be read.
    """

    def __init__(self, root: Path, images: list[str]) -> None:
        self.root, self.images = root, images
        self._videos = Videos(root)
        self.size = self[0].shape[:2]  # (H, W)

    def __getitem__(self, i: int) -> Picture:
        image = self.images[i]
        of_video = video_frame(image)
        if of_video:
            try:
                picture = self._videos.read(*of_video)
            except Unreadable as error:
                raise InputError(
                    f"{self.root / image}: {error}; --root must be the folder of the videos that the features were "
                    "extracted from"
                ) from None
        else:
            path = self.root / image
            read = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
            if read is None:
                raise InputError(
                    f"{path}: no readable picture; --root must be the folder that the features were extracted from"
                )
            picture = np.asarray(read, np.uint8)
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def images_of(store: FeatureStore, track: Track) -> list[str]:
    """The ``image`` column of a track's rows, which may be in several parts."""
    found: list[str] = []
    for part in parts(store.folder, store.manifest):
        with open_part(part, store.manifest.row_schema) as file:
            table = file.read(columns=["image", "track_id"])
        found += table.filter(pc.equal(table["track_id"], track.track_id))["image"].to_pylist()
    return found
