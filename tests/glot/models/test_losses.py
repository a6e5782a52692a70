"""Laws of the loss: perfect predictions, empty selections, masks; every term is the one of the paper."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from glot.config import LossConfig
from glot.human.body import Body, load_body
from glot.human.camera import project
from glot.human.joints import COMMON14_IN_SPIN49
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.glot import GLoTOutput
from glot.models.losses import Targets, frame_counts, glot_loss, needed_frames
from glot.models.smpl_params import SMPLParams
from tests.fixtures.small_model import EXACT, SMALL, features, random_targets, small_model

CONFIG = LossConfig()
OFFICIAL = LossConfig(velocity3d_mask="official", velocity3d_root="official")
TERMS = {f"{b}/{t}" for b in ("global", "local") for t in ("keypoints2d", "joints3d", "velocity2d", "velocity3d")}
TERMS |= {f"{b}/{t}" for b in ("global", "local") for t in ("pose", "shape")}
B, T, K = 3, 8, 3


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def params(frames: int, seed: int) -> SMPLParams:
    g = torch.Generator().manual_seed(seed)
    rotmats = axis_angle_to_rotmat(torch.randn(B, frames, 24, 3, generator=g) * 0.4)
    cam = torch.rand(B, frames, 3, generator=g) * torch.tensor([0.5, 0.2, 0.2]) + torch.tensor([0.6, -0.1, -0.1])
    return SMPLParams(rotmats, torch.randn(B, frames, 10, generator=g), cam)


def prediction(seed: int = 0, *, hidden: bool = True) -> GLoTOutput:
    mask = torch.zeros(B, T, dtype=torch.bool)
    if hidden:
        mask[:, ::2] = True
    return GLoTOutput(params(T, seed), params(K, seed + 100), mask)


def truth_of(global_: SMPLParams, body: Body) -> Targets:
    """Targets that this prediction meets exactly."""
    joints = body.joints(global_.rotmats.flatten(0, 1), global_.betas.flatten(0, 1)).unflatten(0, (B, T))
    keypoints = torch.cat((project(joints, global_.cam), torch.ones(B, T, 49, 1)), -1)
    ones = torch.ones(B, T)
    return Targets(keypoints, joints, global_.rotmats, global_.betas, ones, ones, torch.tensor([False, True, True]))


def loss_of(output: GLoTOutput, targets: Targets, body: Body, config: LossConfig = CONFIG) -> tuple[float, dict]:
    total, terms = glot_loss(output, targets, body=body, config=config)
    return total.item(), {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize("use_accel", [False, True])
@pytest.mark.parametrize("base", [CONFIG, OFFICIAL])
def test_a_perfect_prediction_costs_nothing(body: Body, base: LossConfig, use_accel: bool) -> None:
    whole = params(T, 1)
    middle = SMPLParams(*(values[:, T // 2 - 1 : T // 2 + 2] for values in whole))
    for mask in (torch.zeros(B, T, dtype=torch.bool), torch.ones(B, T, dtype=torch.bool)):
        output = GLoTOutput(whole, middle, mask)
        total, terms = loss_of(output, truth_of(whole, body), body, replace(base, use_accel=use_accel))
        assert total == pytest.approx(0, abs=1e-6) and terms.keys() == TERMS


def test_every_term_measures_its_own_error(body: Body) -> None:
    """An error in one quantity raises exactly the terms that measure it."""
    whole = params(T, 1)
    middle = SMPLParams(*(values[:, T // 2 - 1 : T // 2 + 2] for values in whole))
    output = GLoTOutput(whole, middle, torch.ones(B, T, dtype=torch.bool))

    def raised(**changes: Tensor) -> set[str]:
        _, terms = loss_of(output, replace(truth_of(whole, body), **changes), body)
        return {name.partition("/")[2] for name, value in terms.items() if value > 1e-5}

    truth = truth_of(whole, body)
    g = torch.Generator().manual_seed(5)
    assert raised(betas=truth.betas + 1) == {"shape"}
    assert raised(rotmats=truth.rotmats.flip(1)) == {"pose"}
    assert raised(joints3d=truth.joints3d + 3) == set()  # a common shift is not measured, only the pose about the root
    assert raised(joints3d=truth.joints3d * 1.1) == {"joints3d", "velocity3d"}
    constant = torch.randn(1, 1, 49, 3, generator=g) * 0.1
    assert raised(joints3d=truth.joints3d + constant) == {"joints3d"}
    shift = torch.tensor([0.1, 0.2, 0.0])
    assert raised(keypoints2d=truth.keypoints2d + shift) == {"keypoints2d"}
    jitter = torch.randn(B, T, 49, 3, generator=g) * torch.tensor([0.1, 0.1, 0.0])
    assert raised(keypoints2d=truth.keypoints2d + jitter) == {"keypoints2d", "velocity2d"}


def test_values_by_hand(body: Body) -> None:
    output, targets = prediction(hidden=False), random_targets(B, T)
    _, terms = loss_of(output, targets, body)
    g, known = output.global_, targets.is_3d
    joints = body.joints(g.rotmats.flatten(0, 1), g.betas.flatten(0, 1)).unflatten(0, (B, T))
    error = (project(joints, g.cam) - targets.keypoints2d[..., :2]) ** 2 * targets.keypoints2d[..., 2:]
    assert terms["global/keypoints2d"] == pytest.approx(300 * error.mean().item(), rel=1e-5)

    def centred(x: Tensor) -> Tensor:
        return x[..., COMMON14_IN_SPIN49, :] - (x[..., 27:28, :] + x[..., 28:29, :]) / 2  # rhip, lhip

    difference = (centred(joints) - centred(targets.joints3d))[known]
    assert terms["global/joints3d"] == pytest.approx(300 * difference.square().mean().item(), rel=1e-5)
    step = difference[:, 1:] - difference[:, :-1]
    count = difference.numel()
    assert terms["global/velocity3d"] == pytest.approx(100 * step.square().sum().item() / count, rel=1e-5)
    pose = (g.rotmats - targets.rotmats)[known].square().mean().item()
    assert terms["global/pose"] == pytest.approx(60 * pose, rel=1e-5)
    shape = (output.local.betas - targets.betas[:, 3:6])[known].square().mean().item()
    assert terms["local/shape"] == pytest.approx(0.06 * shape, rel=1e-5)


def test_terms_sum_to_the_total_and_scale_with_their_weights(body: Body) -> None:
    output, targets = prediction(), random_targets(B, T)
    total, terms = loss_of(output, targets, body)
    assert total == pytest.approx(sum(terms.values()), rel=1e-6)
    for field in fields(LossConfig)[:6]:
        _, doubled = loss_of(output, targets, body, replace(CONFIG, **{field.name: 2 * getattr(CONFIG, field.name)}))
        for name in terms:
            factor = 2 if name.endswith(f"/{field.name}") else 1
            assert doubled[name] == pytest.approx(factor * terms[name], rel=1e-6)


def test_global_branch_is_measured_on_hidden_frames_only(body: Body) -> None:
    output, targets = prediction(), random_targets(B, T)
    _, before = loss_of(output, targets, body, replace(CONFIG, velocity2d=0, velocity3d=0))
    shown = ~output.mask
    targets.betas[shown] += 5
    targets.rotmats[shown] = torch.eye(3)
    targets.keypoints2d[shown] += 1
    targets.joints3d[shown] *= 2
    _, after = loss_of(output, targets, body, replace(CONFIG, velocity2d=0, velocity3d=0))
    for name in before:
        assert (before[name] == after[name]) == (name.startswith("global") or "velocity" in name), name


def test_with_nothing_hidden_all_frames_are_measured(body: Body) -> None:
    output, targets = prediction(hidden=False), random_targets(B, T)
    everything = output._replace(mask=torch.ones_like(output.mask))
    assert loss_of(output, targets, body) == loss_of(everything, targets, body)


def test_masked_terms_average_over_all_frames(body: Body) -> None:
    """The official normalisation: hiding half the frames halves the term when all frames are equally wrong."""
    output, targets = prediction(hidden=False), random_targets(B, T)
    targets.betas = output.global_.betas + 1
    _, full = loss_of(output, targets, body)
    _, half = loss_of(output._replace(mask=prediction().mask), targets, body)
    assert half["global/shape"] == pytest.approx(full["global/shape"] / 2)


@pytest.mark.parametrize("config", [CONFIG, OFFICIAL, replace(CONFIG, use_accel=True)])
@pytest.mark.parametrize("what", ["no w_3d", "no w_smpl", "no 3d windows", "no confidence", "nothing"])
def test_empty_selections_give_zero_and_keep_the_graph(body: Body, config: LossConfig, what: str) -> None:
    """DDP needs a gradient for every parameter in every step, and a NaN would end the run."""
    model = small_model().train()
    targets = random_targets()
    nothing = what == "nothing"
    if what == "no w_3d" or nothing:
        targets.w_3d, targets.joints3d = torch.zeros(3, 8), torch.full_like(targets.joints3d, torch.nan)
    if what == "no w_smpl" or nothing:
        targets.w_smpl, targets.betas = torch.zeros(3, 8), torch.full_like(targets.betas, torch.nan)
        targets.rotmats = torch.full_like(targets.rotmats, torch.nan)
    if what == "no 3d windows" or nothing:
        targets.is_3d = torch.zeros(3, dtype=torch.bool)
    if what == "no confidence" or nothing:
        targets.keypoints2d[..., 2] = 0
    total, terms = glot_loss(model(features()), targets, body=body, config=config)
    total.backward()
    assert total.isfinite() and (total.item() == 0) == nothing
    empty = {"no w_3d": ("joints3d", "velocity3d"), "no w_smpl": ("pose", "shape"), "no confidence": ("2d",)}
    gone = empty.get(what, ("3d", "pose", "shape"))
    for name, value in terms.items():
        assert (value == 0) == (nothing or name.endswith(gone)), name
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_3d_labels_of_2d_windows_do_not_matter(body: Body) -> None:
    output, targets = prediction(), random_targets(B, T)
    before = loss_of(output, targets, body)
    for name in ("joints3d", "rotmats", "betas"):
        getattr(targets, name)[0] = torch.nan
    assert loss_of(output, targets, body) == before


def test_order_of_windows_does_not_matter(body: Body) -> None:
    output, targets = prediction(), random_targets(B, T)
    flipped = Targets(**{f.name: getattr(targets, f.name).flip(0) for f in fields(targets)})
    turned = GLoTOutput(
        SMPLParams(*(v.flip(0) for v in output.global_)),
        SMPLParams(*(v.flip(0) for v in output.local)),
        output.mask.flip(0),
    )
    assert loss_of(output, targets, body)[0] == pytest.approx(loss_of(turned, flipped, body)[0], rel=1e-5)


def test_unknown_frames_do_not_enter_a_velocity(body: Body) -> None:
    """The official loss uses the difference to a next frame without a label; ours does not."""
    output, targets = prediction(hidden=False), random_targets(B, T)
    targets.w_3d[:, 4] = 0
    before, official = loss_of(output, targets, body), loss_of(output, targets, body, OFFICIAL)
    targets.joints3d[:, 4] += torch.randn(B, 49, 3, generator=torch.Generator().manual_seed(1))
    assert loss_of(output, targets, body) == before
    assert loss_of(output, targets, body, OFFICIAL) != official


# Human3.6M stores 0 for an unknown joint, which is where the pelvis is.
@pytest.mark.parametrize("held", [0.0, 1e6, torch.nan, torch.inf])
@pytest.mark.parametrize(
    "config", [CONFIG, OFFICIAL, replace(CONFIG, use_accel=True), replace(OFFICIAL, use_accel=True)]
)
def test_unknown_joints_cost_nothing_whatever_they_hold(body: Body, config: LossConfig, held: float) -> None:
    whole = params(T, 1)
    rotmats = whole.rotmats.clone().requires_grad_()
    middle = SMPLParams(*(values[:, T // 2 - 1 : T // 2 + 2] for values in whole))
    output = GLoTOutput(SMPLParams(rotmats, *whole[1:]), middle, torch.ones(B, T, dtype=torch.bool))
    targets, config = truth_of(whole, body), replace(config, keypoints2d=0, pose=0, shape=0, velocity2d=0)
    known = torch.ones(B, T, 49, dtype=torch.bool)
    frames, joints = (1, 4, 5, T - 1), (25, 27, 31, 38)  # among them the right hip, without which there is no root
    known[:, frames, joints] = False
    known[:, :, [0, 40]] = False  # these two are not among the 14 joints of the loss
    broken = replace(targets, joints3d=targets.joints3d.masked_fill(~known[..., None], held), joints3d_valid=known)
    assert loss_of(output, broken, body, config)[0] == pytest.approx(0, abs=1e-6)

    # A prediction that is wrong everywhere is not pulled anywhere in these frames, and elsewhere as if they were cut.
    scaled = replace(broken, joints3d=broken.joints3d * 1.1)
    total, terms = glot_loss(output, scaled, body=body, config=config)
    total.backward()
    gradient = rotmats.grad
    assert gradient is not None and gradient.isfinite().all() and terms["global/joints3d"] > 0.1
    assert not gradient[:, frames].any() and gradient[1:, [0, 2, 3, 6]].flatten(2).any(2).all()
    other = replace(scaled, joints3d=torch.where(known[..., None], scaled.joints3d, -3.0))
    assert loss_of(output, other, body, config) == (total.item(), {name: term.item() for name, term in terms.items()})


@pytest.mark.parametrize(
    "config", [CONFIG, OFFICIAL, replace(CONFIG, use_accel=True), replace(OFFICIAL, use_accel=True)]
)
def test_a_loss_with_all_joints_known_is_the_plain_loss_to_the_bit(body: Body, config: LossConfig) -> None:
    targets = random_targets(B, T)
    targets.w_3d[:, 4] = 0
    known = replace(targets, joints3d_valid=torch.ones(B, T, 49, dtype=torch.bool))
    assert loss_of(prediction(), known, body, config) == loss_of(prediction(), targets, body, config)
    assert torch.equal(*(frame_counts(each, prediction().mask, local_frames=K) for each in (known, targets)))


def test_frames_with_unknown_joints_are_not_counted(body: Body) -> None:
    """As in evaluation: a term is the mean over the frames in which all 14 joints are known."""
    output, targets = prediction(hidden=False), random_targets(B, T)
    targets.joints3d_valid = torch.ones(B, T, 49, dtype=torch.bool)
    targets.joints3d_valid[:, 2, 30] = False
    absent = replace(targets, w_3d=targets.w_3d.clone(), joints3d_valid=None)
    absent.w_3d[:, 2] = 0
    assert loss_of(output, targets, body) == loss_of(output, absent, body)


def test_official_velocity_counts_the_path_of_the_root(body: Body) -> None:
    whole = params(T, 1)
    middle = SMPLParams(*(values[:, T // 2 - 1 : T // 2 + 2] for values in whole))
    output = GLoTOutput(whole, middle, torch.zeros(B, T, dtype=torch.bool))
    targets = truth_of(whole, body)
    targets.joints3d = targets.joints3d + torch.arange(T)[:, None, None] * 0.1  # walks 10 cm a frame
    assert loss_of(output, targets, body)[0] == pytest.approx(0, abs=1e-6)
    _, terms = loss_of(output, targets, body, OFFICIAL)
    assert terms["global/velocity3d"] == pytest.approx(100 * 0.1**2 * (T - 1) / T, rel=1e-4)


def test_gradient_at_the_exact_identity_rotation_is_finite(body: Body) -> None:
    """The official pose loss goes through axis-angle vectors, whose gradient there is NaN."""
    for target in (torch.eye(3), axis_angle_to_rotmat(torch.tensor([0.1, 0.2, 0.3]))):
        rotmats = torch.eye(3).repeat(B, T, 24, 1, 1).requires_grad_()
        exact = SMPLParams(rotmats, torch.zeros(B, T, 10), torch.tensor([0.9, 0, 0]).expand(B, T, 3))
        output = GLoTOutput(exact, SMPLParams(*(v[:, 3:6] for v in exact)), torch.zeros(B, T, dtype=torch.bool))
        targets = replace(truth_of(exact, body), rotmats=target.expand(B, T, 24, 3, 3))
        glot_loss(output, targets, body=body, config=CONFIG)[0].backward()
        assert rotmats.grad.isfinite().all()


def test_without_a_local_branch_it_is_not_counted_twice(body: Body) -> None:
    model = small_model(replace(SMALL, modules="gmm"))
    _, terms = loss_of(model.train()(features()), random_targets(), body)
    assert terms.keys() == {name for name in TERMS if name.startswith("global")}


@pytest.mark.parametrize("use_accel", [False, True])
def test_one_supervised_local_frame(body: Body, use_accel: bool) -> None:
    model = small_model(replace(EXACT, local_supervised_frames=1))
    config = replace(CONFIG, use_accel=use_accel)
    total, terms = loss_of(model.train()(features()), random_targets(), body, config)
    assert terms["local/velocity2d"] == terms["local/velocity3d"] == 0 and terms["local/joints3d"] > 0


def test_a_few_steps_learn(body: Body) -> None:
    model, x = small_model(EXACT).train(), features()
    targets = truth_of(params(T, 1), body)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    noise = torch.rand(B, T, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(40):
        total, _ = glot_loss(model(x, noise), targets, body=body, config=CONFIG)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    assert losses[-1] < 0.35 * losses[0]


def test_targets_move_whole_and_wrong_sizes_are_refused(body: Body) -> None:
    moved = random_targets().to("meta")
    assert {getattr(moved, f.name).device.type for f in fields(moved)} == {"meta"}
    with pytest.raises(ValueError, match=r"targets of \(3, 7\)"):
        glot_loss(prediction(), random_targets(3, 7), body=body, config=CONFIG)


@pytest.mark.parametrize("mask", ["masked", "official"])
def test_the_mean_of_shares_is_the_loss_of_the_whole(body: Body, mask: str) -> None:
    """Two workers with different numbers of windows with 3D labels, averaged as DDP does."""
    config = replace(CONFIG, velocity3d_mask=mask)
    targets, x, noise = random_targets(6, 8), features(batch=6), torch.rand(6, 8)
    targets.w_3d[2, 3:] = 0
    targets.w_smpl[4] = 0

    def share(rows: slice) -> Targets:
        return Targets(**{field.name: getattr(targets, field.name)[rows] for field in fields(Targets)})

    def gradient(rows: slice, counts: Tensor | None) -> tuple[Tensor, Tensor]:
        model = small_model(EXACT).train()
        total, _ = glot_loss(model(x[rows], noise[rows]), share(rows), body=body, config=config, counts=counts)
        total.backward()
        return total.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    def count(rows: slice) -> Tensor:
        """Without running the model: the noise decides which frames are hidden."""
        return frame_counts(share(rows), small_model(EXACT).motion.choose(noise[rows])[1], local_frames=3)

    shares = (slice(0, 2), slice(2, 6))
    mean = torch.stack([count(rows) for rows in shares]).mean(0)
    losses, gradients = zip(*(gradient(rows, mean) for rows in shares), strict=True)
    whole, whole_gradient = gradient(slice(0, 6), None)
    torch.testing.assert_close(torch.stack(losses).mean(), whole, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.stack(gradients).mean(0), whole_gradient, rtol=1e-3, atol=1e-5)
    naive = torch.stack([gradient(rows, None)[0] for rows in shares]).mean()
    assert abs(naive / whole - 1) > 1e-3, "without it they differ"


VELOCITIES = [CONFIG, replace(CONFIG, use_accel=True), OFFICIAL]


@pytest.mark.parametrize("config", VELOCITIES)
def test_the_loss_depends_on_needed_frames_and_on_no_others(body: Body, config: LossConfig) -> None:
    output, targets = prediction(), random_targets(B, T)
    output.mask[:] = torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < 0.3
    needed = needed_frames(output.mask, config)
    global_ = SMPLParams(*(values.clone().requires_grad_() for values in output.global_))
    glot_loss(output._replace(global_=global_), targets, body=body, config=config)[0].backward()
    moved = sum(values.grad.abs().flatten(2).sum(2) for values in global_) > 0
    with_labels = moved[targets.is_3d]  # the 3D velocities of other windows do not count
    assert torch.equal(with_labels, needed[targets.is_3d]) and not (moved & ~needed).any()
    assert needed.all() == (config == OFFICIAL)


@pytest.mark.parametrize("config", VELOCITIES)
@pytest.mark.parametrize("changes", [{}, {"modules": "gmm"}, {"mask_ratio": 0.0}, {"decoder_depth": 2}])
def test_leaving_out_frames_that_are_not_needed_changes_no_loss_and_no_gradient(
    body: Body, config: LossConfig, changes: dict
) -> None:
    model = small_model(replace(EXACT, **changes)).train()
    noise = torch.rand(B, T, generator=torch.Generator().manual_seed(3))
    targets, x = random_targets(B, T), features()
    losses, gradients = [], []
    for leaves_out in (False, True):
        mask = model.motion.choose(noise)[1] & (model.motion.kept < T)
        needed = needed_frames(mask, config) if leaves_out else None
        output = model(x, noise, needed)
        loss, terms = glot_loss(output, targets, body=body, config=config, needed=needed)
        model.zero_grad()
        loss.backward()
        losses.append(torch.stack([loss, *terms.values()]))
        gradients.append([parameter.grad for parameter in model.parameters()])
        if needed is not None and not needed.all():
            away = ~needed
            away[:, model.middle_frames] = False
            torch.testing.assert_close(output.global_.cam[away], model.mean[-3:].expand(int(away.sum()), 3))
    torch.testing.assert_close(losses[0], losses[1])
    for before, after in zip(*gradients, strict=True):
        assert (before - after).norm() <= 1e-5 * before.norm()
