"""Writes a tiny MPI-INF-3DHP: MATLAB v5 cells for 14 cameras, MATLAB v7.3 files with a user block, JPEGs, videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

SIZE = 128  # px, width and height of a picture; the real ones have 2048
FOCAL = 170.0
TRAIN_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
# mm from the middle of the hips; x to the right of the picture, y down. The person faces the camera.
SKELETON = {
    "spine3": (0, -400, 20), "spine4": (0, -480, 20), "spine2": (0, -250, 20), "Spine (H36M)": (0, -120, 20),
    "hip": (0, -30, 10), "neck": (0, -520, 20), "Head (H36M)": (0, -600, -30), "headtop": (0, -760, 0),
    "left_clavicle": (40, -500, 0), "lshoulder": (170, -480, 0), "lelbow": (220, -230, 30), "lwrist": (240, 0, -40),
    "left_hand": (250, 60, -50), "right_clavicle": (-40, -500, 0), "rshoulder": (-170, -480, 0),
    "relbow": (-230, -240, 40), "rwrist": (-260, -10, -60), "right_hand": (-270, 50, -70), "lhip": (100, 0, 0),
    "lknee": (110, 420, -20), "lankle": (120, 820, 30), "left_foot": (120, 870, -60), "left_toe": (120, 880, -130),
    "rhip": (-100, 0, 0), "rknee": (-115, 430, -10), "rankle": (-125, 830, 40), "right_foot": (-125, 880, -50),
    "right_toe": (-125, 890, -120),
}  # fmt: skip
TRAIN_ORDER = tuple(SKELETON)
TEST_ORDER = (
    "headtop", "neck", "rshoulder", "relbow", "rwrist", "lshoulder", "lelbow", "lwrist", "rhip", "rknee", "rankle",
    "lhip", "lknee", "lankle", "hip", "Spine (H36M)", "Head (H36M)",
)  # fmt: skip


def person(rows: int, names: Sequence[str], *, camera: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows, J, 2) px and (rows, J, 3) mm, the first being the picture of the second; each camera sees it elsewhere."""
    time = np.arange(rows)[:, None]
    root = np.concatenate([300 * np.sin(time / 9) + 30 * camera, 20 * np.cos(time / 5), 4200 + 60.0 * camera + time], 1)
    joints = root[:, None] + np.array([SKELETON[name] for name in names], np.float64)
    joints[..., 0] += 15 * np.sin(time / 2 + [TRAIN_ORDER.index(name) for name in names])
    return FOCAL * joints[..., :2] / joints[..., 2:] + SIZE / 2, joints


def annotations(rows: int) -> dict[str, Any]:
    """The variables of an annot.mat."""
    cells: dict[str, Any] = {name: np.empty((14, 1), object) for name in ("annot2", "annot3", "univ_annot3")}
    for camera in range(14):
        keypoints2d, joints3d = person(rows, TRAIN_ORDER, camera=camera)
        cells["annot2"][camera, 0] = keypoints2d.reshape(rows, -1)
        cells["annot3"][camera, 0] = joints3d.reshape(rows, -1)
        cells["univ_annot3"][camera, 0] = joints3d.reshape(rows, -1) * 0.9
    return {**cells, "frames": np.arange(rows, dtype=np.float64)[:, None], "cameras": np.arange(14.0)[None]}


def write_sequence(
    root: Path,
    *,
    subject: int = 1,
    sequence: int = 1,
    frames: int = 24,
    rows: int | None = None,
    cameras: Sequence[int] = TRAIN_CAMERAS,
    film: bool = False,
    data: dict[str, Any] | None = None,
) -> Path:
    """A training sequence with ``rows`` annotations and ``frames`` pictures a camera, as JPEGs or as videos."""
    folder = root / f"S{subject}" / f"Seq{sequence}"
    folder.mkdir(parents=True)
    content = data if data is not None else annotations(frames + 2 if rows is None else rows)
    scipy.io.savemat(folder / "annot.mat", content, do_compression=True)
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in range(14):
        matrix = " ".join(["1 0 0 0", "0 1 0 0", "0 0 1 0", "0 0 0 1"])
        lines += [f"name          {camera}", "  sensor      10 10", f"  size        {SIZE} {SIZE}", "  animated    0"]
        lines += [f"  intrinsic   {matrix}", f"  extrinsic   {matrix}", "  radial      0"]
    (folder / "camera.calibration").write_text("\n".join(lines) + "\n")
    for camera in cameras:
        if film:
            (folder / "imageSequence").mkdir(exist_ok=True)
            write_film(folder / "imageSequence" / f"video_{camera}.avi", frames)
        else:
            write_pictures(folder / f"video_{camera}", frames)
    return folder


def write_test(
    root: Path,
    *,
    subject: int = 1,
    frames: int = 24,
    rows: int | None = None,
    data: dict[str, NDArray[Any]] | None = None,
) -> Path:
    """A test video; returns its annot_data.mat. Every third frame is valid."""
    folder = root / "mpi_inf_3dhp_test_set" / f"TS{subject}"
    folder.mkdir(parents=True)
    write_hdf5(folder / "annot_data.mat", data if data is not None else test_annotations(rows or frames))
    write_pictures(folder / "imageSequence", frames, name="img_{:06d}.jpg")
    return folder / "annot_data.mat"


def test_annotations(rows: int) -> dict[str, NDArray[Any]]:
    keypoints2d, joints3d = person(rows, TEST_ORDER)
    return {
        "valid_frame": (np.arange(rows) % 3 == 0).astype(np.float64)[:, None],
        "annot2": keypoints2d[:, None],
        "annot3": joints3d[:, None],
        "univ_annot3": joints3d[:, None] * 0.9,
        "activity_annotation": np.ones((rows, 1)),
        "bb_crop": np.zeros((rows, 34)),
    }


test_annotations.__test__ = False  # type: ignore[attr-defined]


def write_hdf5(path: Path, data: dict[str, NDArray[Any]]) -> None:
    """As MATLAB's save -v7.3: a user block of 512 bytes, which begins with text, before the HDF5 file."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in data.items():
            file[name] = values
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan  1 00:00:00 2015 HDF5 schema 1.00 ."
    with path.open("r+b") as file:
        file.write(text.ljust(116) + bytes(8) + b"\x00\x02IM")


def picture(frame: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(frame).integers(0, 255, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def write_pictures(folder: Path, frames: int, *, name: str = "{:06d}.jpg") -> None:
    folder.mkdir(parents=True)
    for frame in range(frames):
        cv2.imwrite(str(folder / name.format(frame + 1)), picture(frame))


def write_film(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuvj420p"
        for frame in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(frame), format="bgr24")))
        container.mux(stream.encode())


def write_dataset(root: Path, *, cameras: Sequence[int] = TRAIN_CAMERAS) -> None:
    """Two sequences (pictures at 25 fps, videos at 50) and two test videos; every clip has 20 rows."""
    write_sequence(root, subject=1, sequence=1, frames=20, cameras=cameras)
    write_sequence(root, subject=1, sequence=2, frames=40, cameras=cameras, film=True)
    for subject in (1, 5):
        write_test(root, subject=subject, frames=20)
