"""Several models of one track: they are coloured by their errors, told apart, and drawn where they differ most."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from glot.errors import InputError
from glot.features.store import FeatureStore
from glot.human.body import Body
from glot.human.joints import SMPL_JOINTS
from glot.human.rotation import axis_angle_to_rotmat
from glot.model_configs import TCMRConfig
from glot.models.inference import load_model, predict_track
from glot.pictures.comparison import largest_apart
from glot.pictures.drawing import fitted
from glot.pictures.model_comparison import ModelBodies, compare_models, film, moments, sheet
from glot.pictures.several_models import bodies_of, captions, render_models
from glot.pictures.spec import RenderSpec
from glot.pictures.track_pictures import TrackRenderer
from glot.render import main
from glot.scoring.track_errors import score
from tests.fixtures.rendering import SMALL, true_track, write_checkpoint

BENT = 9  # the row in which an elbow is bent
SMALL_TCMR = TCMRConfig(feature_size=32, frames=8, gru_width=8, gru_layers=1, attention_width=8, hidden=16)


@pytest.fixture
def truth(store: FeatureStore, body: Body, folder: Path) -> TrackRenderer:
    return true_track(store, body, folder / "pictures")


@pytest.fixture
def bent(truth: TrackRenderer) -> TrackRenderer:
    """The truth somewhere else in the picture, with the left elbow bent by 60 degrees in one row."""
    rotmats = truth.params.rotmats.clone()
    elbow = SMPL_JOINTS.index("left_elbow")
    rotmats[BENT, elbow] = rotmats[BENT, elbow] @ axis_angle_to_rotmat(torch.tensor([0.0, 1.05, 0.0]))
    cam = truth.params.cam + torch.tensor([0.0, 0.3, 0.1])
    return truth.with_bodies(truth.params._replace(rotmats=rotmats, cam=cam))


@pytest.fixture(scope="module")
def checkpoints(folder: Path, body: Body) -> tuple[Path, ...]:
    """Two GLoTs, of 16 frames, and a TCMR of 8."""
    store = FeatureStore.open(folder / "features" / "3dpw" / "test")
    write_checkpoint(folder / "other" / "best", SMALL, body, store.manifest.backbone, seed=5)
    write_checkpoint(folder / "tcmr", SMALL_TCMR, body, store.manifest.backbone)
    return folder / "best", folder / "other" / "best", folder / "tcmr"


def spec_for(folder: Path, *checkpoints: Path, **options) -> RenderSpec:
    places = {"features": folder / "features", "root": folder / "pictures", "out": folder / "none"}
    return RenderSpec(checkpoints=checkpoints, **{"compare": True, "track": "clip01_0", **places, **options})


def test_the_wrong_arm_is_red_and_shown(truth: TrackRenderer, bent: TrackRenderer, body: Body) -> None:
    models = [ModelBodies("truth", truth, {}), ModelBodies("bent", bent, {})]
    comparison = compare_models(models)
    assert np.delete(comparison.apart, BENT).max() < 1e-6 < 0.005 < comparison.apart[BENT]
    assert BENT in moments(comparison, 3)
    right, wrong, elsewhere = (
        comparison.colours(model, row) for model, row in ((models[0], BENT), (models[1], BENT), (models[1], BENT - 1))
    )
    assert right is not None and wrong is not None and elsewhere is not None
    assert np.ptp(right, axis=0).max() < 1e-4  # blue, also where the body stands somewhere else
    assert np.ptp(elsewhere, axis=0).max() < 1e-4
    red = wrong[:, 0] - wrong[:, 2] > 0.2
    arm = [SMPL_JOINTS.index(f"left_{name}") for name in ("elbow", "wrist", "hand")]
    share = body.weights[:, arm].sum(dim=1).numpy()
    assert red.sum() > 100
    assert share[red].min() > 0.5


def test_the_order_of_models_changes_no_difference(truth: TrackRenderer, bent: TrackRenderer) -> None:
    models = [ModelBodies(name, drawn, {}) for name, drawn in (("a", truth), ("b", bent), ("c", truth))]
    forward, backward = compare_models(models), compare_models(models[::-1])
    np.testing.assert_allclose(forward.apart, backward.apart, atol=1e-7)
    pair = compare_models(models[:2])
    np.testing.assert_allclose(forward.apart, pair.apart * 2 / 3, atol=1e-6)  # a and c are the same


def test_a_perfect_model_has_no_errors(truth: TrackRenderer, checkpoints: tuple[Path, ...]) -> None:
    perfect = bodies_of("perfect", truth, load_model(checkpoints[0]).model)
    assert len(perfect.errors) == len(truth)
    assert perfect.mean is not None
    assert max(perfect.mean) < 1e-2


def test_tracks_without_truth_are_drawn_in_one_colour(truth: TrackRenderer, bent: TrackRenderer) -> None:
    unknown = copy.copy(truth)
    unknown.truth = replace(truth.truth, scored=np.zeros_like(truth.truth.scored), smpl=None)
    unknown.true_cam = None
    comparison = compare_models([ModelBodies("a", unknown, {}), ModelBodies("b", unknown.with_bodies(bent.params), {})])
    assert comparison.colours(comparison.models[1], BENT) is None
    assert comparison.models[0].mean is None
    with_truth = compare_models([ModelBodies("a", truth, {}), ModelBodies("b", bent, {})])
    one, two = (sheet(each, [BENT], title="").shape for each in (comparison, with_truth))
    assert one[0] < two[0]  # no row of the truth
    frames = [next(film(each)).shape for each in (comparison, with_truth)]
    assert [width // height for height, width, _ in frames] == [1, 1]
    assert frames[0][1] == 3 * 400
    assert frames[1][1] == 4 * 400


@pytest.mark.parametrize("count", [1, 2, 6, 40])
def test_moments_are_in_order_apart_and_hold_the_largest(count: int) -> None:
    values = np.random.default_rng(count).random(30)
    rows = largest_apart(values, count)
    assert len(rows) == min(count, 30)
    assert values.argmax() in rows
    assert np.diff([-30, *rows]).min() >= max(30 / (2 * count), 1)


def test_captions_tell_models_apart() -> None:
    def named(titles: str, *paths: str) -> tuple[str, ...]:
        return captions(titles.split(), [Path(path) for path in paths])

    assert named("GLoT TCMR", "runs/a/best", "runs/a/best2") == ("GLoT", "TCMR")
    assert named("GLoT GLoT", "open", "runs/a/best") == ("GLoT (open)", "GLoT (a)")
    assert named("GLoT TCMR GLoT", "runs/a/best", "x", "runs/b/best") == ("GLoT (a)", "TCMR", "GLoT (b)")
    assert named("GLoT GLoT", "runs/a/best", "runs/a/last") == ("GLoT (a/best)", "GLoT (a/last)")
    assert named("GLoT GLoT", "x/a/best", "y/a/best") == ("GLoT (x)", "GLoT (y)")
    assert named("GLoT GLoT", "a/best", "best") == ("GLoT (a)", "GLoT (best)")


def test_long_captions_become_smaller_before_they_are_cut() -> None:
    assert fitted("GLoT", 200, scale=0.6) == ("GLoT", 0.6)
    text, scale = fitted("GLoT of the second run", 150, scale=0.6)
    assert (text, scale < 0.6) == ("GLoT of the second run", True)
    text, scale = fitted("GLoT of the second run " * 3, 150, scale=0.6)
    assert text.startswith("GLoT of") and text.endswith("...")
    assert cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] <= 150


def test_models_of_different_kinds_are_drawn_with_their_errors(
    folder: Path, body: Body, store: FeatureStore, checkpoints: tuple[Path, ...]
) -> None:
    out = folder / "models"
    done = render_models(spec_for(folder, *checkpoints, out=out, max_frames=2, moments="3,20"))
    files = [f"clip01_0_models.{suffix}" for suffix in ("json", "mp4", "png")]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in done.files) == files
    report = json.loads((out / files[0]).read_text())
    names = ["GLoT (render0)", "GLoT (other)", "TCMR"]
    assert [name for name, _ in done.means][1:] == names[1:]
    assert [model["name"] for model in report["models"]] == [name for name, _ in done.means]
    assert (report["track"], report["moments"], report["frame_index"]) == ("clip01_0", [3, 20], list(range(24)))
    assert len(report["models_differ_by"]) == 24
    truth = true_track(store, body, folder / "pictures").truth
    for model, path in zip(report["models"], checkpoints, strict=True):
        saved = load_model(path).model
        params = predict_track(saved, store.features_of(truth.rows))
        expected = score(params, truth, body, frames=saved.config.frames)["corrected"]
        for error in ("mpjpe", "pa_mpjpe"):
            np.testing.assert_allclose(model[error], 1000 * expected[error], atol=0.02)
            assert model["mean"][error] == pytest.approx(1000 * expected[error].mean(), abs=0.02)
    picture = cv2.imread(str(out / files[2]))
    assert picture is not None
    assert picture.std() > 10
    with av.open(str(out / files[1])) as container:
        shapes = [frame.to_ndarray(format="rgb24").shape for frame in container.decode(video=0)]
    assert shapes == [(2 * 384 + 68, 5 * 384, 3)] * 2


def test_the_command_prints_each_model(
    folder: Path, checkpoints: tuple[Path, ...], store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = spec_for(folder, *checkpoints[1:], out=folder / "named", names="one, another", max_frames=1, moments="1")
    assert main(replace(spec, track="")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("(median of 2)")
    assert [line.split(":")[0] for line in lines[1:3]] == ["  one", "  another"]
    assert all("PA-MPJPE" in line for line in lines[1:3])


def test_checkpoints_that_do_not_belong_together_are_named(
    folder: Path, body: Body, store: FeatureStore, checkpoints: tuple[Path, ...]
) -> None:
    backbone = store.manifest.backbone
    write_checkpoint(folder / "unlike" / "backbone", SMALL, body, {**backbone, "name": "blazepose", "hash": "x"})
    write_checkpoint(
        folder / "unlike" / "size", replace(SMALL, feature_size=16), body, {**backbone, "feature_size": 16}
    )

    write_checkpoint(folder / "unlike" / "body", SMALL, body, backbone, name="SMPL")

    def mistake(match: str, *paths: Path, **options) -> None:
        with pytest.raises(InputError, match=match) as caught:
            main(spec_for(folder, *paths, **options))
        assert "\n" not in str(caught.value)

    mistake(r"unlike/backbone: .* trained on \(blazepose", checkpoints[0], folder / "unlike" / "backbone")
    mistake("unlike/size: .*this model takes 16", checkpoints[0], folder / "unlike" / "size")
    mistake("unlike/body: made with SMPL, but --body is the open body", checkpoints[0], folder / "unlike" / "body")
    with pytest.raises(InputError, match="nowhere: there is no such folder; train one with\n"):
        main(spec_for(folder, checkpoints[0], folder / "nowhere"))
    mistake("track 'bob': not in", *checkpoints, track="bob")
    mistake("--moments 99: not among this track's frames, 0 to 23", *checkpoints, moments="3,99")
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoints": ("a",)}, "--compare a: is one checkpoint; name two or more"),
        ({"checkpoints": ("a", "b", "a")}, "--compare a b a: a is named twice"),
        ({"checkpoints": ("a", "b"), "compare": False}, "a b: to draw checkpoints side by side, add --compare"),
        ({"checkpoints": ("a", "b"), "checkpoint": Path("c")}, "--checkpoint c: leave it out"),
        ({"checkpoints": ("a", "b"), "attention": True}, "--attention: draws one model"),
        ({"checkpoints": ("a", "b"), "names": "x"}, "--names x: 2 checkpoints need 2 different names"),
        ({"checkpoints": ("a", "b"), "names": "x,x"}, "--names x,x: 2 checkpoints need 2 different names"),
        ({"checkpoints": ("a", "b"), "names": "x,"}, "--names x,: 2 checkpoints need 2 different names"),
        ({"checkpoints": ("a", "b"), "moments": "41"}, "--moments 41: a picture has at most 40 columns"),
        ({"names": "x,y"}, "--names x,y: is for several models"),
        *(
            ({"checkpoints": ("a", "b"), "moments": moments}, f"--moments {moments}: give a number")
            for moments in ("0", "", "five", "-1", "3,x", "3,-1")
        ),
    ],
)
def test_options_of_several_models_are_checked(options: dict, message: str) -> None:
    options = {**options, "checkpoints": tuple(map(Path, options.get("checkpoints", ())))}
    with pytest.raises(InputError, match=message):
        RenderSpec(**{"compare": True, **options})


def test_moments_are_a_number_or_frames() -> None:
    named = {"4": 4, "4,": (4,), "0,": (0,), "12, 3,12": (12, 3)}
    assert {text: RenderSpec(moments=text).columns for text in named} == named
