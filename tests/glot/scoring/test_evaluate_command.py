"""The command: options and their mistakes, what is missing, what it prints and writes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from glot.errors import InputError
from glot.evaluate import main
from glot.features.schema import read_manifest, write_manifest
from glot.features.store import FeatureStore
from glot.human.body import Body, load_body
from glot.model_configs import GLoTConfig
from glot.models.checkpoint import load_checkpoint, save_checkpoint
from glot.models.glot import GLoT
from glot.recipes import open_sample, recipe_named
from glot.scoring.baselines import mean_pose_predictor
from glot.scoring.evaluation import evaluate_predictor, evaluate_split
from glot.scoring.metric_names import METRICS
from glot.scoring.paper_rows import PAPER
from glot.scoring.spec import EvaluateSpec
from tests.fixtures.features import write_feature_set
from tests.fixtures.peer_models import small_peer
from tests.fixtures.places import ROOT


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


@pytest.fixture
def checkpoint(tmp_path: Path, body: Body) -> Path:
    """A small untrained model, saved as training would, that takes the features of the set beside it."""
    torch.manual_seed(3)
    small = GLoTConfig(
        feature_size=32, nearby_frames=2, width=16, heads=2, decoder_width=8, local_width=8, hidden=16, depth=1
    )
    recipe = replace(open_sample(), model=small)
    model = GLoT(small, mean_pose=body.mean_pose, mean_shape=body.mean_shape, mean_cam=body.mean_cam)
    manifest = write_feature_set(tmp_path / "features" / "3dpw" / "test", tracks=[30, 12, 20], body=body, split="test")
    save_checkpoint(
        tmp_path / "best",
        model=model,
        recipe=recipe,
        body={"name": "open_body", "hash": body.file_hash, "open": True},
        features={"backbone": manifest.backbone},
        metrics={},
        step=40,
    )
    return tmp_path / "best"


def command(checkpoint: Path, *more: str) -> subprocess.CompletedProcess[str]:
    features = checkpoint.parent / "features"
    arguments = ["--checkpoint", str(checkpoint), "--features", str(features), *more]
    return subprocess.run(
        [sys.executable, "-m", "glot.evaluate", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "GLOT_CACHE": str(checkpoint.parent / "cache"), "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
    )


def test_command_prints_and_writes_everything(checkpoint: Path, body: Body) -> None:
    report, table = checkpoint.parent / "out" / "report.json", checkpoint.parent / "tracks.parquet"
    done = command(checkpoint, "--untrained", "--json", str(report), "--table", str(table))
    assert done.returncode == 0, done.stderr
    values = json.loads(report.read_text())
    for row in ("corrected", "official", "mean_pose", "untrained"):
        assert set(METRICS) <= values[row].keys()
        assert all(np.isfinite(values[row][name]) for name in METRICS)
        assert f"{values[row]['pa_mpjpe']:.1f}" in done.stdout
    assert (values["frames"], values["tracks"], values["skipped_tracks"]) == (50, 2, ["clip01_0"])
    # A run may have started from other weights: those of a checkpoint, SPIN's, or whitening layers.
    assert "random weights" in done.stdout and "before training" not in done.stdout
    assert values["comparable_with_paper"] is False
    assert "not comparable" in done.stdout
    assert "80.7" in done.stdout
    assert "ground truth: 1 (clip01_0)" in done.stdout
    rows = pq.read_table(table).to_pylist()
    assert [(row["protocol"], row["track_id"], row["frames"]) for row in rows] == [
        (protocol, track, frames)
        for protocol in ("corrected", "official")
        for track, frames in (("clip00_0", 30), ("clip02_0", 20))
    ]
    # The command and the function that training validates with agree.
    store = FeatureStore.open(checkpoint.parent / "features" / "3dpw" / "test", cache=checkpoint.parent / "cache")
    model = load_checkpoint(checkpoint).model
    mine = evaluate_split(model, store, body, batch_size=7)
    assert mine.metrics["pa_mpjpe"] == pytest.approx(values["corrected"]["pa_mpjpe"], abs=1e-2)
    mean = evaluate_predictor(mean_pose_predictor(model), store, body, frames=16)["corrected"]
    assert mean.metrics["mpvpe"] == pytest.approx(values["mean_pose"]["mpvpe"], abs=1e-3)


@pytest.mark.parametrize("kind", ["vibe", "meva"])
def test_another_model_is_evaluated_as_its_release_does_beside_its_own_row(
    tmp_path: Path, body: Body, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    manifest = write_feature_set(tmp_path / "features" / "3dpw" / "test", tracks=[36, 20], body=body, split="test")
    model = small_peer(kind, feature_size=32, frames=30 if kind == "meva" else 16)
    save_checkpoint(
        tmp_path / "best",
        model=model,
        recipe=replace(recipe_named(f"{kind}_table1_3dpw"), model=model.config),
        body={"name": "open_body", "hash": body.file_hash, "open": True},
        features={"backbone": manifest.backbone},
        metrics={},
        step=1,
    )
    report = tmp_path / "report.json"
    main(EvaluateSpec(checkpoint=tmp_path / "best", features=tmp_path / "features", json_file=report))
    values, printed = json.loads(report.read_text()), capsys.readouterr().out
    assert values["corrected"]["frames"] == 56 and "56 frames of 2 tracks" in printed
    if kind == "vibe":
        assert values["official"]["frames"] == 48 and "official: 48 frames of 2 tracks" in printed
        assert f"predictions (official): {values['official']['accel_of_predictions']:.1f}" in printed
    else:
        assert values["official"]["skipped_tracks"] == ["clip01_0"] and values["skipped_tracks"] == []
        assert "tracks skipped by official" in printed and "accel_of_predictions" not in values["official"]
    assert values["paper"] == PAPER["3dpw", f"{kind}_table1_3dpw"].errors and "80.7" not in printed


@pytest.mark.parametrize("dataset", ["human36m", "mpi_inf_3dhp"])
def test_sets_without_smpl_have_no_vertex_errors(
    checkpoint: Path, body: Body, dataset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkpoint.parent
    monkeypatch.setenv("GLOT_CACHE", str(root / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    for seed, split in enumerate(("train", "validation", "test")):
        write_feature_set(
            root / "features" / dataset / split, tracks=[40, 30], body=body, seed=seed, dataset=dataset, split=split
        )
    spec = EvaluateSpec(
        checkpoint=checkpoint,
        features=root / "features",
        dataset=dataset,
        untrained=True,
        probe=True,
        json_file=root / "report.json",
        table=root / "tracks.csv",
    )
    main(spec)
    values = json.loads((root / "report.json").read_text())
    for row in ("corrected", "official", "mean_pose", "untrained", "linear_probe"):
        assert METRICS.keys() - values[row].keys() == {"mpvpe"}
    assert all("mpvpe" not in track for track in values["corrected"]["per_track"])
    lines = (root / "tracks.csv").read_text().splitlines()
    assert lines[0] == "protocol,track_id,frames,pa_mpjpe,mpjpe,mpvpe,accel" and len(lines) == 5
    assert all(line.split(",")[5] == "" for line in lines[1:])
    printed = capsys.readouterr().out
    assert printed.count(" - ") >= 5 and "the paper on" in printed


def test_mistakes_are_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_CACHE", str(checkpoint.parent / "cache"))
    features = checkpoint.parent / "features"

    def mistake(match: str, **settings) -> None:
        with pytest.raises(InputError, match=match):
            main(EvaluateSpec(**{"checkpoint": checkpoint, "features": features, **settings}))

    mistake("no such folder", checkpoint=checkpoint.parent / "worst")
    mistake("no checkpoint", checkpoint=features)
    mistake("no such feature folder", split="validation")
    mistake("--protocol paper: must be one of corrected, official, both", protocol="paper")
    mistake("--batch-size 0", batch_size=0)
    mistake("--dataset: an empty name", dataset="")
    mistake("--body .*nobody: there is no such body file", body=Path("nobody"))
    mistake("--gendered needs --body FOLDER", gendered=True)
    mistake("--json .* is a folder", json_file=features)
    mistake(".csv or .parquet", table=Path("errors.xlsx"))
    folder = features / "3dpw" / "test"
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, backbone={**manifest.backbone, "hash": "another"}))
    mistake("trained on")
    write_manifest(folder, replace(manifest, body={"name": "smpl", "hash": "x", "open": False}))
    mistake("made with SMPL, but --body is the open body")
    write_manifest(folder, replace(manifest, body={**manifest.body, "hash": "older"}))
    mistake("another version of the open body")
    done = command(checkpoint, "--table", "errors.xlsx")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --table errors.xlsx: ")
    assert done.stderr.count("\n") == 1


def test_everything_missing_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOT_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        EvaluateSpec().with_places()
    message = str(error.value)
    assert "2 things are missing" in message
    assert f"{tmp_path}/features/3dpw/test: no such feature folder" in message
    assert f"{tmp_path}/runs/open_sample/best: there is no such folder" in message
    for made_by in ("make_sample.py", "pipelines/extract_features.py\n", "python -m glot.train_ray"):
        assert made_by in message + "\n"
    with pytest.raises(InputError, match="extract_features.py --dataset human36m --out /sets"):
        EvaluateSpec(dataset="human36m", features=Path("/sets"), checkpoint=Path("open")).with_places()


def test_without_options_the_home_folder_is_used(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = checkpoint.parent / "runs" / "open_sample" / "best"
    best.parent.mkdir(parents=True)
    checkpoint.rename(best)
    monkeypatch.setenv("GLOT_HOME", str(checkpoint.parent))
    monkeypatch.setenv("GLOT_CACHE", str(checkpoint.parent / "cache"))
    spec = EvaluateSpec().with_places()
    assert (spec.checkpoint, spec.features) == (best, checkpoint.parent / "features")
    main(EvaluateSpec(protocol="corrected"))
    assert "50 frames of 2 tracks" in capsys.readouterr().out


def test_in_a_ray_job_relative_paths_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="--features sets, --checkpoint best: must be absolute in a Ray job"):
        EvaluateSpec(features=Path("sets"), checkpoint=Path("best")).with_places()
    with pytest.raises(InputError, match="^--features sets: must be absolute"):
        EvaluateSpec(features=Path("sets"), checkpoint=Path("open")).with_places()


def test_the_cost_needs_neither_features_nor_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    main(EvaluateSpec(cost=True))
    printed = capsys.readouterr().out
    for model in ("GLoT", "TCMR", "MPS-Net", "VIBE", "MEVA", "288.1"):
        assert model in printed
