"""The shipped models belong to the shipped backbones and body; a published checkpoint is half as large, and equal."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glot import publish
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.blazepose import FEATURES, features_hash
from glot.human.body import load_body
from glot.models.checkpoint import load_checkpoint
from glot.models.inference import checkpoint_path, load_model
from glot.models.spec import PublishSpec
from glot.recipes import open_start, open_video
from glot.training.record.curves import plot, write_table
from tests.fixtures.small_model import small_model
from tests.glot.models.test_checkpoint import save


def test_the_shipped_model_is_for_the_shipped_backbone_and_body() -> None:
    shipped = load_model(Path("open"))
    assert shipped.info["features"]["backbone"]["hash"] == load_backbone().hash
    assert shipped.info["body"]["hash"] == load_body().file_hash and shipped.info["body"]["open"]
    assert shipped.recipe.model == open_start().model
    assert all(bool(torch.isfinite(values).all()) for values in shipped.model.state_dict().values())
    assert sum(path.stat().st_size for path in checkpoint_path(Path("open")).iterdir()) < 50e6


def test_the_model_for_videos_is_small_and_for_blazepose() -> None:
    shipped = load_model(Path("open"), "blazepose")
    backbone = shipped.info["features"]["backbone"]
    assert backbone["name"] == "blazepose" and backbone["hash"] == features_hash()
    assert shipped.info["body"]["hash"] == load_body().file_hash and shipped.info["body"]["open"]
    assert shipped.recipe.model == replace(open_video().model, feature_size=FEATURES)
    assert all(bool(torch.isfinite(values).all()) for values in shipped.model.state_dict().values())
    assert sum(path.stat().st_size for path in checkpoint_path(Path("open"), "blazepose").iterdir()) < 15e6


def test_a_published_checkpoint_is_half_as_large_and_predicts_nearly_the_same(tmp_path: Path) -> None:
    model = small_model()
    save(tmp_path / "full", model)
    publish.main(PublishSpec(checkpoint=tmp_path / "full", out=tmp_path / "half"))
    full, half = (tmp_path / name / "model.safetensors" for name in ("full", "half"))
    assert half.stat().st_size < 0.65 * full.stat().st_size
    ours, theirs = load_checkpoint(tmp_path / "half"), load_checkpoint(tmp_path / "full")
    assert ours.recipe == theirs.recipe and ours.info == theirs.info
    for name, values in ours.model.state_dict().items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, theirs.model.state_dict()[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(InputError, match="no checkpoint"):
        publish.main(PublishSpec(checkpoint=tmp_path, out=tmp_path / "other"))


def test_the_epochs_of_a_run_become_a_table_and_a_picture(tmp_path: Path) -> None:
    epochs: list[dict[str, float]] = [
        {"epoch": n, "step": 10 * n, "train_loss": 5 / n, "train_global/pose": 1 / n, "train_local/pose": 2 / n}
        for n in (1, 2, 3)
    ]
    epochs[2]["val_pa_mpjpe"] = 80.0  # the first epochs are not validated
    write_table(epochs, tmp_path / "epochs.csv")
    rows = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert [row["val_pa_mpjpe"] for row in rows] == ["", "", "80.0"] and rows[1]["train_loss"] == "2.5"
    plot(epochs, tmp_path / "epochs.png")
    plot(epochs[:1], tmp_path / "one.png")
    assert min(path.stat().st_size for path in tmp_path.glob("*.png")) > 10_000
    assert np.isfinite(float(rows[2]["val_pa_mpjpe"]))
