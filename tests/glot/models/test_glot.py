"""Laws of the model: shapes in both modes, masking, which frames each branch sees; every ablation trains."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from glot.model_configs import GLoTConfig
from glot.models.glot import GLoT
from glot.models.parts.local_branch import ANCESTORS, KinematicRegressor
from glot.models.prediction.sliding import SlidingGLoT
from glot.models.smpl_params import to_params
from tests.fixtures.small_model import EXACT, SMALL, features, small_model, tensors

ABLATIONS = [
    {},
    *({"mask_ratio": step / 8} for step in range(8)),
    {"mask_token": "learnable"},
    {"regressor": "residual"},
    {"modules": "gmm"},
    {"detach_global": False},
    {"positions": "sine"},
    {"hscr_global_pose": "official"},
    {"local_supervised_frames": 1},
    {"nearby_frames": 1},
    {"nearby_frames": 3},
    {"frames": 24, "nearby_frames": 6},
    {"frames": 32},
    {"frames": 10, "mask_ratio": 0.375},
    {"depth": 1, "decoder_depth": 2, "local_depth": 1, "iterations": 1},
]
NAMED = [
    pytest.param(changes, id=",".join(f"{k}={v}" for k, v in changes.items()) or "default") for changes in ABLATIONS
]


@pytest.mark.parametrize("changes", NAMED)
def test_every_ablation_trains_and_evaluates(changes: dict) -> None:
    config = replace(SMALL, **changes)
    model, x = small_model(config), features(config)
    frames, count = config.frames, config.local_supervised_frames
    for model_in_mode in (model.train(), model.eval()):
        output = model_in_mode(x)
        for params, k in ((output.global_, frames), (output.local, count)):
            assert params.rotmats.shape == (3, k, 24, 3, 3)
            assert params.betas.shape == (3, k, 10) and params.cam.shape == (3, k, 3)
        assert output.mask.shape == (3, frames) and output.mask.dtype == torch.bool
        hidden = frames - int(frames * (1 - config.mask_ratio)) if model_in_mode.training else 0
        assert output.mask.sum(1).tolist() == [hidden] * 3
        assert all(t.isfinite().all() for t in tensors(output))
        middle = model.middle(output)
        assert middle.rotmats.shape == (3, 24, 3, 3) and torch.equal(middle.betas, output.local.betas[:, count // 2])
    output = model.train()(x)
    sum(t.float().square().sum() for t in tensors(output)).backward()
    # DDP waits for every parameter in every step.
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("changes", NAMED)
def test_sliding_over_rows_gives_the_middle_frame_of_every_window(changes: dict) -> None:
    config = replace(SMALL, **changes)
    model = small_model(config).eval()
    rows = features(config).flatten(0, 1)  # more than a window, an odd number too
    with torch.no_grad():
        windows = rows.unfold(0, config.frames, 1).transpose(1, 2)
        for short, long in zip(SlidingGLoT(model)(rows), model.middle(model(windows)), strict=True):
            assert len(short) == len(rows) - config.frames + 1
            torch.testing.assert_close(short, long, rtol=0, atol=1e-4)  # 6D vectors of random weights are short


def test_official_size() -> None:
    model = small_model(GLoTConfig(hscr_global_pose="official"))
    # The official model has 16,743,948 with fc2 of the iterative regressor and two unused heads of the kinematic one.
    dead = (1024 * 1024 + 1024) + (10 * 1024 + 10) + (3 * 1024 + 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 16_743_948 - dead


def test_evaluation_is_deterministic_and_samples_are_independent() -> None:
    model, x = small_model().eval(), features()
    with torch.no_grad():
        whole, again, alone = model(x), model(x), model(x[1:2])
    for a, b, c in zip(tensors(whole), tensors(again), tensors(alone), strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a[1:2], c)


def test_training_noise_follows_the_seed() -> None:
    model, x = small_model().train(), features()
    runs = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        runs.append(tensors(model(x)))
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0]) and not torch.equal(runs[0][-1], runs[2][-1])


def test_given_noise_decides_the_mask() -> None:
    model, x = small_model(EXACT).train(), features()
    noise = torch.rand(3, 8, generator=torch.Generator().manual_seed(3))
    one, two = model(x, noise), model(x, noise)
    assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(two), strict=True))
    # The four largest values are hidden.
    assert torch.equal(one.mask, noise >= noise.sort(1).values[:, 4:5])


def test_hidden_frames_do_not_leak_into_the_global_branch() -> None:
    model, x = small_model(EXACT).train(), features()
    noise = torch.rand(3, 8, generator=torch.Generator().manual_seed(3))
    before = model(x, noise)
    changed = torch.where(before.mask[..., None], x + 100, x)
    after = model(changed, noise)
    assert all(torch.equal(a, b) for a, b in zip(before.global_, after.global_, strict=True))
    # The local branch reads the raw features around the middle, hidden or not (paper section 3.3).
    assert not torch.equal(before.local.rotmats, after.local.rotmats)


def test_without_hidden_frames_training_equals_evaluation() -> None:
    model, x = small_model(replace(EXACT, mask_ratio=0.0)), features()
    for a, b in zip(tensors(model.train()(x)), tensors(model.eval()(x)), strict=True):
        torch.testing.assert_close(a, b)


def test_local_branch_sees_only_its_neighbourhood() -> None:
    model, x = small_model(EXACT).eval(), features()
    x.requires_grad_()
    estimate, memory = torch.zeros(3, 3, 157), torch.randn(3, 8, 32)
    model.correction(x, memory, estimate, model.middle_frames).sum().backward()
    seen = x.grad.abs().sum((0, 2)) > 0
    assert seen.tolist() == [2 <= t <= 6 for t in range(8)]


@pytest.mark.parametrize("detach", [True, False])
def test_detach_keeps_the_local_loss_out_of_the_global_regressor(detach: bool) -> None:
    model = small_model(replace(EXACT, detach_global=detach)).train()
    model(features()).local.betas.sum().backward()
    gradient = model.iterative.shape.weight.grad
    assert (gradient is None or not gradient.any()) == detach
    # Through the memory the local loss reaches the encoder all the same.
    assert model.motion.project.weight.grad.any()


def test_gmm_alone_repeats_its_middle_frames() -> None:
    output = small_model(replace(SMALL, modules="gmm")).eval()(features())
    assert not output.has_local and torch.equal(output.local.rotmats, output.global_.rotmats[:, 3:6])


@pytest.mark.parametrize("slices", ["paper", "official"])
def test_kinematic_solve_equals_joint_after_joint(slices: str) -> None:
    """The paper's recursion, joint by joint, against all joints at once, with gradients."""
    torch.manual_seed(0)
    regressor = KinematicRegressor(replace(SMALL, hscr_global_pose=slices)).double()
    feature = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    pose = torch.randn(2, 3, 144, dtype=torch.float64, requires_grad=True)
    residuals: list[torch.Tensor] = []
    for joint, layer in enumerate(regressor.joints):
        first = joint if slices == "official" else 6 * joint
        above = [residuals[ancestor] for ancestor in ANCESTORS[joint]]
        residuals.append(layer(torch.cat([feature, *above, pose[..., first : first + 6]], dim=-1)))
    expected = torch.cat(residuals, dim=-1)
    found = regressor.residual(feature, pose)
    torch.testing.assert_close(found, expected, check_dtype=False, rtol=0, atol=1e-5)
    inputs = [feature, pose, *regressor.parameters()]
    weights = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs, allow_unused=True),
        torch.autograd.grad((expected * weights).sum(), inputs, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_paper_slices_use_every_number_of_the_pose_and_official_ones_29() -> None:
    for slices, used in (("paper", 144), ("official", 29)):
        regressor = KinematicRegressor(replace(SMALL, hscr_global_pose=slices))
        pose = torch.zeros(1, 1, 144, requires_grad=True)
        regressor.residual(torch.zeros(1, 1, 24), pose).sum().backward()
        assert int((pose.grad != 0).sum()) == used


def test_dropout_sits_where_it_should() -> None:
    def noisy(**changes: float) -> list[bool]:
        model = small_model(replace(EXACT, mask_ratio=0.0, **changes)).train()
        one, two = model(features()), model(features())
        return [not torch.equal(a.cam, b.cam) for a, b in ((one.global_, two.global_), (one.local, two.local))]

    assert noisy() == [False, False]
    assert noisy(hscr_dropout=0.5) == [False, True]
    for field in ("dropout", "drop_path", "regressor_dropout"):
        assert noisy(**{field: 0.5}) == [True, True]


def test_initialisation() -> None:
    model = small_model(GLoTConfig())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            bound = (6 / (module.in_features + module.out_features)) ** 0.5
            if module.out_features in (3, 6, 10, 144):  # corrections of the body, small at first
                bound *= 0.01
            assert 0.7 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or not module.bias.any(), name
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
    assert 0.015 < model.motion.positions.vectors.std() < 0.025


@pytest.mark.parametrize("settings", [{}, {"regressor": "residual"}, {"modules": "gmm"}])
def test_training_starts_at_the_mean_body(settings: dict) -> None:
    model = small_model(replace(SMALL, **settings)).eval()
    mean = to_params(model.mean.view(1, 1, -1))
    features = torch.randn(3, 8, 40, generator=torch.Generator().manual_seed(0))
    for params in model(features)[:2]:
        assert (params.rotmats - mean.rotmats).abs().max() < 0.2
        assert (params.betas - mean.betas).abs().max() < 0.2
        assert (params.cam - mean.cam).abs().max() < 0.2  # a scale near 0 makes the 2D loss explode


def test_sine_positions_are_fixed_and_differ_by_frame() -> None:
    model = small_model(replace(SMALL, positions="sine"))
    assert not [name for name, _ in model.named_parameters() if "positions" in name]
    vectors = model.motion.positions.vectors[0]
    assert (torch.cdist(vectors, vectors) + torch.eye(8)).min() > 0.1


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 8, 41), (8, 40)])
def test_wrong_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"this model takes \(B, 8, 40\)"):
        small_model()(torch.zeros(shape))


def test_autocast_gives_nearly_the_same() -> None:
    model = small_model(EXACT).eval()
    with torch.no_grad():
        exact = model.middle(model(features()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.middle(model(features()))
    assert rough.rotmats.dtype == torch.float32
    torch.testing.assert_close(rough.betas, exact.betas, rtol=0, atol=0.15)


def test_the_seed_decides_the_initial_weights() -> None:
    one, two = small_model(seed=4).state_dict(), small_model(seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert isinstance(small_model(), GLoT)


def test_first_corrections_are_small_or_officially_large() -> None:
    """Xavier uniform: the square of the weights is on average the gain squared x 2 / (inputs + outputs)."""
    gains = {}
    for kind in ("small", "official"):
        model = small_model(replace(SMALL, hidden=256, first_corrections=kind))
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                wanted = 2 / (module.in_features + module.out_features)
                gains[kind, name] = float(module.weight.detach().square().mean() / wanted) ** 0.5
                assert module.bias is None or not module.bias.any()
    heads = {f"{owner}.{head}" for owner in ("iterative", "correction.regressor") for head in ("pose", "shape", "cam")}
    for (kind, name), gain in gains.items():
        is_head = name in heads or name.startswith("correction.regressor.joints.")
        assert gain == pytest.approx(0.01 if is_head and kind == "small" else 1, rel=0.15), (kind, name)

    def distance(kind: str) -> float:
        """Of the first estimates from the mean body."""
        model = small_model(replace(SMALL, first_corrections=kind)).eval()
        estimate = model(features()).global_.betas.detach()
        return float((estimate - model.mean[144:154]).abs().mean())

    assert distance("official") > 30 * distance("small") > 0
