"""A folder to render from (features of two tracks, a small checkpoint, grey pictures), and a clip that is right."""

from pathlib import Path

import cv2
import numpy as np
import torch

from glot.body import Body
from glot.checkpoint import save_checkpoint
from glot.clip import Clip, images_of
from glot.config import ModelConfig, open_sample
from glot.model import GLoT
from glot.scoring import track_truth
from glot.store import FeatureStore
from tests.feature_fixture import IMAGE_SIZE, write_feature_set

WIDTH, HEIGHT = IMAGE_SIZE
SMALL = ModelConfig(
    feature_size=32, nearby_frames=2, width=16, heads=2, decoder_width=8, local_width=8, hidden=16, depth=1
)


def write_folder(path: Path, body: Body, *, config: ModelConfig = SMALL) -> Path:
    """features/3dpw/test (clip00_0 of 20 frames, clip01_0 of 24), best and pictures below ``path``."""
    manifest = write_feature_set(path / "features" / "3dpw" / "test", tracks=[20, 24], body=body, split="test")
    torch.manual_seed(3)
    model = GLoT(config, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam)
    save_checkpoint(
        path / "best",
        model=model,
        recipe=open_sample(),
        body={"name": "open_body", "hash": body.file_hash, "open": True},
        features={"backbone": manifest.backbone},
        metrics={},
        step=1,
    )
    for clip, frames in (("clip00", 20), ("clip01", 24)):
        pictures = path / "pictures" / "imageFiles" / clip
        pictures.mkdir(parents=True)
        for frame in range(frames):
            cv2.imwrite(str(pictures / f"image_{frame:05d}.jpg"), np.full((HEIGHT, WIDTH, 3), 90 + frame, np.uint8))
    return path


def true_clip(store: FeatureStore, body: Body, root: Path) -> Clip:
    """The clip of a model that is always right."""
    track = store.track("clip01_0")
    truth = track_truth(store, track, body)
    assert truth.smpl is not None
    clip = Clip(store, body, truth.smpl, truth, images_of(store, track), root)
    assert clip.true_cam is not None
    clip.params = truth.smpl._replace(cam=clip.true_cam)
    return clip
