"""The same commands with each backbone: features, a model on them, its errors, a search, and bodies of a video."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from glot import evaluate
from glot import predict as predict_command
from glot.capture.spec import PredictSpec
from glot.errors import InputError
from glot.features.backbones.backbone import load_backbone
from glot.features.backbones.extractor import Extractor
from glot.features.schema import GUESS, read_manifest, read_table
from glot.human.joints import BETAS
from glot.motion.motion_files import read_motion
from glot.scoring.spec import EvaluateSpec
from glot.training.driver import fit
from glot.training.record.mlflow_store import default_uri
from glot.training.spec import TrainSpec
from glot.training.workers import ThisProcess
from pipelines.decoders.frames import read_crops, with_rule
from pipelines.decoders.threedpw import decode, find_units
from pipelines.extract_features import main as extract
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures import backbone_package
from tests.fixtures.hmr2 import TOKEN, write_hmr2
from tests.fixtures.onnx_files import linear, write_model
from tests.fixtures.people import pictures, write_pictures
from tests.fixtures.places import ROOT
from tests.fixtures.sweeping import trials_in_this_process
from tests.fixtures.threedpw import write_sequence
from tuning import sweep
from tuning.spec import SearchSpec

TINY = (
    "model.width=8", "model.decoder_width=4", "model.local_width=4", "model.hidden=16", "model.depth=1",
    "model.local_depth=1", "model.heads=2", "data.batch_size=4", "steps_per_epoch=2", "epochs=1",
)  # fmt: skip
FRAMES = 8  # of the film

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Chosen:
    """The options of a backbone, and what its manifest has to say."""

    options: dict[str, Any]
    size: int
    crop_rule: str | None = None
    has_guess: bool = False

    @property
    def for_videos(self) -> dict[str, Any]:
        """Without the option that only extraction has."""
        return {name: value for name, value in self.options.items() if name != "first_guess"}


@pytest.fixture(scope="module", autouse=True)
def ray(local_ray: None) -> None:
    """Extraction joins the Ray that its process has started."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose tracks have enough frames for windows of 16."""
    folder = tmp_path_factory.mktemp("data") / "3dpw"
    for seed, split in enumerate(("train", "validation", "test")):
        write_sequence(folder, f"{split}_00", split=split, frames=24, seed=seed)
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("film") / "walk.mp4", pictures(FRAMES))


def chosen(name: str, folder: Path) -> Chosen:
    if name == "hmr2":
        options = {"backbone": "hmr2", "weights": write_hmr2(folder / "hmr2a.ckpt"), "crop_rule": "4dhumans"}
        return Chosen(options | {"first_guess": True}, TOKEN, "4dhumans", has_guess=True)
    if name == "onnx":
        return Chosen({"backbone": write_model(folder / "any.onnx", **linear(12))}, 12)
    if name == "blazepose":
        return Chosen({"backbone": "blazepose"}, 312)
    return Chosen({"backbone": "resnet50", "weights": Path("random")}, 2048)


@pytest.mark.usefixtures("networks")  # prediction finds people with BlazePose's
@pytest.mark.parametrize("name", ["resnet50", "blazepose", "hmr2", "onnx"])
def test_all_commands_run_with_it(
    name: str, root: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = chosen(name, tmp_path)
    features, best = tmp_path / "features", tmp_path / "run" / "best"
    assert extract(ExtractSpec(dataset="3dpw", root=root, out=features, workers=1, **backbone.options)) == 0
    manifest = read_manifest(features / "3dpw" / "test")
    assert (manifest.backbone["name"], manifest.backbone["feature_size"]) == (name, backbone.size)
    assert manifest.backbone.get("crop_rule") == backbone.crop_rule and manifest.has_guess == backbone.has_guess

    given = {"features": features, "mlflow": "none"}
    fit(TrainSpec(out=tmp_path / "run", settings=TINY, workers=1, **given), ThisProcess(lambda metrics: None))
    evaluate.main(EvaluateSpec(checkpoint=best, features=features, probe=True, json_file=tmp_path / "errors.json"))
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["features"]["backbone"]["hash"] == manifest.backbone["hash"]
    assert ("first_guess" in errors) == backbone.has_guess and errors["linear_probe"]["pa_mpjpe"] > 0

    trials_in_this_process(monkeypatch)
    search = SearchSpec(
        features=features, out=tmp_path / "sweep", settings=TINY, values="0.5", mlflow=default_uri(tmp_path)
    )
    assert not sweep.run_sweep(search).trials.unfinished

    given = {"video": film, "out": tmp_path / "bodies", "checkpoint": best, "fit": "none", "exports": ()}
    given.pop("exports")
    assert predict_command.main(PredictSpec(**given, **backbone.for_videos)) == 0
    assert len(read_motion(tmp_path / "bodies" / "walk" / "person-1.npz").frames) == FRAMES


def test_rows_of_hmr2_are_those_of_a_plain_loop(root: Path, tmp_path: Path) -> None:
    backbone = chosen("hmr2", tmp_path)
    assert extract(ExtractSpec(dataset="3dpw", root=root, split="test", out=tmp_path, **backbone.options)) == 0
    table = read_table(tmp_path / "3dpw" / "test")
    loaded = load_backbone("hmr2", tmp_path / "hmr2a.ckpt", crop_rule="4dhumans", first_guess=True)
    network = Extractor(loaded)
    from glot.human.body import load_body

    (unit,) = find_units(root, "test")
    clips = [with_rule(clip, loaded.crop_rule) for clip in decode(root, unit, load_body(), "corrected").clips]
    wanted: dict[str, list[np.ndarray]] = {clip.track_id: [] for clip in clips}
    for frame in read_crops(root, clips, rule=loaded.crop_rule):
        assert frame.crops is not None
        for (clip, _), crop in zip(frame.people, frame.crops, strict=True):
            wanted[clips[clip].track_id].append(network(crop[None])[0])
    plain = np.concatenate([np.stack(rows) for rows in wanted.values()])
    assert list(dict.fromkeys(table["track_id"].to_pylist())) == list(wanted)
    found = [np.array(table[name].to_pylist()).reshape(len(table), -1) for name in ("feature", *GUESS)]
    np.testing.assert_allclose(np.concatenate(found, axis=1), plain, atol=1e-5)
    assert found[2].shape[1] == BETAS
    # 192:256 widens the square boxes of the dataset by a third, and 4DHumans has no margin.
    np.testing.assert_allclose(np.array(table["crop_scale"].to_pylist()), 4 / 3, rtol=1e-6)


def test_a_model_refuses_features_of_other_weights_and_of_another_crop_rule(root: Path, tmp_path: Path) -> None:
    def features_of(name: str, **options: Any) -> Path:
        out = tmp_path / name
        spec = ExtractSpec(dataset="3dpw", root=root, out=out, workers=1, backbone="hmr2", **options)
        assert extract(spec) == 0
        return out

    one, other = (write_hmr2(tmp_path / f"{seed}.ckpt", seed=seed) for seed in (0, 1))
    trained = features_of("trained", weights=one)
    fit(TrainSpec(features=trained, out=tmp_path / "run", settings=TINY, mlflow="none", workers=1),
        ThisProcess(lambda metrics: None))  # fmt: skip
    best = tmp_path / "run" / "best"
    for name, options, words in (
        ("weights", {"weights": other, "split": "test"}, "hmr2, 1.ckpt, crop rule wham, .* than .*hmr2, 0.ckpt"),
        ("rule", {"weights": one, "split": "test", "crop_rule": "gvhmr"}, "crop rule gvhmr, .* than .*crop rule wham"),
    ):
        with pytest.raises(InputError, match=words):
            evaluate.main(EvaluateSpec(checkpoint=best, features=features_of(name, **options)))
    with pytest.raises(InputError, match="open: the models that come with the project take features of resnet50 or"):
        evaluate.main(EvaluateSpec(checkpoint=Path("open"), features=trained))


@pytest.mark.usefixtures("networks")
def test_a_package_outside_adds_one_and_all_commands_run_with_it(root: Path, film: Path, tmp_path: Path) -> None:
    """Each command is a process of its own; the package is on the path of all, Ray's workers included."""
    place = backbone_package.install(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": f"{place}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    settings = [part for setting in TINY for part in ("--set", setting)]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"axes": [{"field": "model.mask_ratio", "values": [0.5]}]}))
    uri = default_uri(tmp_path)

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "mean colours of the quarters of a crop" in run("-m", "glot.info", "backbones")
    script = str(ROOT / "pipelines" / "extract_features.py")
    run(
        script, "--dataset", "3dpw", "--root", str(root), "--backbone", "colours", "--out", "features", "--workers", "1"
    )
    assert read_manifest(tmp_path / "features" / "3dpw" / "test").backbone["name"] == "colours"
    run("-m", "glot.train_ray", "--features", "features", "--out", "run", "--mlflow", uri, *settings)
    run("-m", "glot.evaluate", "--checkpoint", "run/best", "--features", "features")
    run("-m", "tuning.search", "--space", "space.yaml", "--features", "features", "--out", "sweep", "--mlflow", uri,
        *settings)  # fmt: skip
    run("-m", "glot.predict", str(film), "--backbone", "colours", "--checkpoint", "run/best", "--out", "bodies")
    assert len(read_motion(tmp_path / "bodies" / "walk" / "person-1.npz").frames) == FRAMES
