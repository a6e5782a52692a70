"""Checkpoints, runs and feature sets that earlier code wrote (``stored``): today's code computes the same with them.

Only what dropout and drop-path draw is different today, see ``earlier_draws``.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glot.evaluate import main as evaluate
from glot.features.schema import read_table
from glot.features.store import FeatureStore
from glot.models.checkpoint import load_checkpoint
from glot.models.inference import predict_track
from glot.models.objectives import GLoTObjective
from glot.models.parts.blocks import EVERY, Dropout, DropPath
from glot.scoring.metric_names import METRICS
from glot.scoring.spec import EvaluateSpec
from glot.training.driver import fit
from glot.training.spec import TrainSpec
from glot.training.workers import ThisProcess

STORED = Path(__file__).parent / "stored"
FEATURES = Path(__file__).parents[1] / "features" / "stored" / "features"
SETTINGS = (
    *("model.nearby_frames=2", "model.frames=8", "model.width=4", "model.depth=1", "model.heads=2"),
    *("model.decoder_width=4", "model.local_width=4", "model.local_depth=1", "model.hidden=4", "model.mlp_ratio=2"),
    *("model.mask_token=learnable", "data.batch_size=4", "data.stride=1", "epochs=2", "steps_per_epoch=6"),
    *("warmup_epochs=1", "first_eval_epoch=0"),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def earlier_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout and drop-path draw as they did: with torch's dropout, for every sample and every frame."""

    def add_branch(
        path: DropPath, tokens: Tensor, branch: Callable[[Tensor], Tensor], queries: slice = EVERY
    ) -> Tensor:
        change = branch(tokens)
        if path.training and path.rate:
            keep = 1 - path.rate
            change = change * (change.new_empty(len(change), 1, 1).bernoulli_(keep) / keep)
        return tokens[:, queries] + change

    monkeypatch.setattr(Dropout, "forward", lambda self, values: F.dropout(values, self.rate, self.training))
    monkeypatch.setattr(DropPath, "forward", add_branch)
    monkeypatch.setattr(GLoTObjective, "_needed", lambda self, mask_noise: None)


def test_a_feature_set_is_read() -> None:
    store = FeatureStore.open(FEATURES / "3dpw" / "train")
    assert [tuple(track) for track in store.tracks] == [("clip00_0", 0, 9), ("clip01_0", 9, 17)]
    assert store.features.shape == (17, 16) and store.manifest.body["open"]
    table = read_table(FEATURES / "3dpw" / "train")
    np.testing.assert_array_equal(np.stack(table["feature"].to_numpy()), store.features)


def test_a_checkpoint_predicts_and_scores_the_same(tmp_path: Path) -> None:
    store = FeatureStore.open(FEATURES / "3dpw" / "validation")
    found = predict_track(load_checkpoint(STORED / "checkpoint").model, store.features[:])
    with np.load(STORED / "predictions.npz") as wanted:
        for name, values in found._asdict().items():
            torch.testing.assert_close(values, torch.from_numpy(wanted[name]), rtol=1e-5, atol=1e-5)

    report = tmp_path / "report.json"
    evaluate(
        EvaluateSpec(
            checkpoint=STORED / "checkpoint", features=FEATURES, split="validation", untrained=True, json_file=report
        )
    )
    now, before = json.loads(report.read_text()), json.loads((STORED / "evaluation.json").read_text())
    now.pop("checkpoint")
    assert now.keys() == before.keys()
    for row in ("corrected", "official", "mean_pose", "untrained"):
        assert now[row].keys() == before[row].keys()
        for metric in METRICS:
            assert now[row][metric] == pytest.approx(before[row][metric], rel=1e-4)
    for name in ("frames", "tracks", "skipped_tracks", "paper", "comparable_with_paper", "features"):
        assert now[name] == before[name]


@pytest.mark.usefixtures("earlier_draws")
def test_a_killed_training_run_continues_to_the_same_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(STORED / "run", run)
    spec = TrainSpec(
        features=FEATURES,
        out=run,
        settings=(*SETTINGS, "model.regressor=residual"),
        mlflow="none",
        resume=True,
        save_every=5,
    )
    epochs: list[dict[str, float]] = []
    metrics = fit(spec, ThisProcess(epochs.append))
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    for name, value in json.loads((STORED / "continued_metrics.json").read_text()).items():
        assert metrics[name] == pytest.approx(value, rel=1e-4), name
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


@pytest.mark.usefixtures("earlier_draws")
def test_a_run_from_the_start_ends_at_the_same_weights(tmp_path: Path) -> None:
    spec = TrainSpec(features=FEATURES, out=tmp_path / "run", settings=SETTINGS, mlflow="none")
    fit(spec, ThisProcess(lambda metrics: None))
    now, before = load_checkpoint(tmp_path / "run" / "best"), load_checkpoint(STORED / "checkpoint")
    assert now.recipe == before.recipe and now.info["step"] == before.info["step"]
    for name, values in before.model.state_dict().items():
        found = now.model.state_dict()[name]
        if name.endswith("qkv.bias"):  # the keys' bias does not matter: its gradient is rounding, which Adam scales up
            values, found = (torch.cat((x.chunk(3)[0], x.chunk(3)[2])) for x in (values, found))
        torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-6)
