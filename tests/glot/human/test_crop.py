"""The affine map of the crop, the crops that it makes, and 2D joints at the same places as in the crop."""

import numpy as np
import pytest
import torch

from glot.human.crop import CROP_SIZE, MEAN, STD, crop_image, crop_matrix, keypoints_to_crop, normalise


def picture(height: int = 300, width: int = 320) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_centre_and_half_a_side_go_to_the_middle_and_the_edges() -> None:
    matrix = crop_matrix((510.0, 320.0, 100.0, 100.0), 1.2)
    points = np.array([[510, 320, 1], [510, 380, 1], [570, 320, 1]])
    assert np.allclose(points @ matrix.T, [[112, 112], [112, 224], [224, 112]])


def test_a_crop_of_its_own_size_is_a_copy_in_rgb() -> None:
    frame = picture()
    crop = crop_image(frame, (150, 140, CROP_SIZE / 1.2, CROP_SIZE / 1.2), 1.2)
    assert crop.dtype == np.uint8
    assert np.array_equal(crop, frame[28:252, 38:262, ::-1])  # centre 150 goes to pixel 112: no half-pixel shift


def test_outside_the_image_is_black() -> None:
    crop = crop_image(np.full((300, 320, 3), 200, np.uint8), (0, 150, 200, 200), 1.2)
    assert not crop[:, :110].any() and (crop[20:200, 114:] == 200).all()


def test_normalise_uses_imagenets_mean_and_deviation() -> None:
    crops = np.zeros((2, CROP_SIZE, CROP_SIZE, 3), np.uint8)
    crops[1] = 255
    values = normalise(torch.from_numpy(crops))
    assert values.shape == (2, 3, CROP_SIZE, CROP_SIZE) and values.dtype == torch.float32
    assert torch.allclose(values[0, :, 5, 7], -torch.tensor(MEAN) / torch.tensor(STD))
    assert torch.allclose(values[1, :, 5, 7], (1 - torch.tensor(MEAN)) / torch.tensor(STD))
    with pytest.raises(ValueError, match="uint8"):
        normalise(torch.zeros(1, 3, 224, 224))


def test_keypoints_agree_with_the_crops_matrix() -> None:
    rng = np.random.default_rng(1)
    bbox = np.column_stack([rng.uniform(100, 900, (5, 2)), np.repeat(rng.uniform(50, 400, (5, 1)), 2, 1)])
    scale = rng.uniform(1.0, 1.4, 5)
    keypoints = rng.uniform(0, 1000, (5, 49, 3))
    before = keypoints.copy()
    units = keypoints_to_crop(keypoints, bbox, scale)
    for i in range(5):
        pixels = np.c_[keypoints[i, :, :2], np.ones(49)] @ crop_matrix(bbox[i], scale[i]).T
        assert np.allclose(units[i, :, :2], 2 * pixels / CROP_SIZE - 1)
    assert np.array_equal(units[..., 2], keypoints[..., 2])
    assert np.array_equal(keypoints, before)  # the official loader changed its data in place


def test_60_px_right_of_a_box_of_100_is_the_edge() -> None:
    units = keypoints_to_crop([[[510.0, 320.0, 1.0], [570.0, 320.0, 1.0]]], [[510.0, 320.0, 100.0, 100.0]], 1.2)
    assert np.allclose(units[0, :, :2], [[0, 0], [1, 0]])
