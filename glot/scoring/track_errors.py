"""Predictions for one track and its ground truth in; errors of each frame out. The truth depends on the dataset.

N frames of a track, J joints, V vertices; metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from glot.features.store import FeatureStore, Track
from glot.features.windows import prediction_order, usual_step
from glot.human.body import Body
from glot.human.joints import COMMON14_IN_SPIN49, SPIN49
from glot.human.rotation import axis_angle_to_rotmat
from glot.models.smpl_params import SMPLParams
from glot.scoring.metrics import HIPS, accel_error, mpjpe, mpvpe, pa_mpjpe

# The 17 joints of MPI-INF-3DHP's test set; its pelvis is the joint called hip.
MPI17 = (
    "headtop", "neck", "rshoulder", "relbow", "rwrist", "lshoulder", "lelbow", "lwrist", "rhip", "rknee", "rankle",
    "lhip", "lknee", "lankle", "hip", "Spine (H36M)", "Head (H36M)",
)  # fmt: skip
BODIES_AT_ONCE = 512  # where only joints are computed; an eighth of this number where vertices are computed


@dataclass(frozen=True)
class Truth:
    """The ground truth of a track."""

    rows: NDArray[np.int64]  # (N,) rows of the store that windows are taken from
    scored: NDArray[np.bool_]  # (N,) True where the error of the row counts
    frame_index: NDArray[np.int32]  # (N,)
    joints: NDArray[np.float64]  # (N, J, 3) metres
    pelvis: tuple[int, ...]  # indices among the J joints; their mean is the pelvis
    slots: tuple[int, ...] | None  # indices of the J joints among the 49; None: the 14 of the H36M regressor
    smpl: SMPLParams | None  # the true parameters, where the dataset has them
    body: Body  # the body that these parameters are for

    def at(self, chosen: NDArray[np.int64]) -> "Truth":
        """The ground truth of the chosen rows, 0 ... N - 1."""
        return replace(
            self,
            rows=self.rows[chosen],
            scored=self.scored[chosen],
            frame_index=self.frame_index[chosen],
            joints=self.joints[chosen],
            smpl=self.smpl and SMPLParams(*(values[torch.from_numpy(chosen)] for values in self.smpl)),
        )


def track_truth(store: FeatureStore, track: Track, body: Body, *, counts_invalid: bool = False) -> Truth:
    """The ground truth of the paper's evaluation, which differs by dataset.

    - 3dpw, and any other set with SMPL parameters: the 14 regressed joints of ``body`` in the true pose and shape.
      (3DPW's shapes are for gendered bodies; published numbers use the neutral body.)
    - human36m: 14 motion-capture joints.
    - mpi_inf_3dhp: 17 joints. Rows that are not valid are part of windows but not scored.

    Except in mpi_inf_3dhp, rows that are not valid are dropped *before* windows are formed. With ``counts_invalid``
    they are rows like all others, in every dataset.
    """
    kind = _kind(store, track, counts_invalid=counts_invalid)
    rows, frame_index = kind.rows, store.frame_index[kind.rows]
    if kind.mocap:
        joints = store.joints3d[rows][:, list(kind.slots)].astype(np.float64)
        # Human3.6M: the *predicted* 14 joints come from the regressor that was made for its markers.
        slots = kind.slots if kind.pelvis != HIPS else None
        return Truth(rows, kind.scored, frame_index, joints, kind.pelvis, slots, None, body)
    cam = torch.zeros(len(rows), 3)
    smpl = SMPLParams(
        axis_angle_to_rotmat(torch.from_numpy(store.pose[rows])), torch.from_numpy(store.betas[rows]), cam
    )
    return Truth(rows, kind.scored, frame_index, _joints(body, smpl, None), HIPS, None, smpl, body)


def is_scored(store: FeatureStore, track: Track, *, frames: int) -> bool:
    """Whether a track has the ``frames`` of a window and at least one row whose error counts."""
    kind = _kind(store, track)
    return len(kind.rows) >= frames and bool(kind.scored.any())


class _Kind(NamedTuple):
    """Which rows of a track are evaluated, and against what."""

    rows: NDArray[np.int64]  # (N,) as in ``Truth``
    scored: NDArray[np.bool_]  # (N,) as in ``Truth``
    mocap: bool  # whether the truth are measured joints, not SMPL parameters
    slots: tuple[int, ...]  # indices of the measured joints among the 49
    pelvis: tuple[int, ...]  # as in ``Truth``


def _kind(store: FeatureStore, track: Track, *, counts_invalid: bool = False) -> _Kind:
    rows = np.arange(track.start, track.stop)
    valid = store.valid[track.rows] | counts_invalid
    mpi = store.manifest.dataset == "mpi_inf_3dhp"
    if not mpi:
        rows, valid = rows[valid], valid[valid]
    names, pelvis = (MPI17, (MPI17.index("hip"),)) if mpi else (SPIN49[COMMON14_IN_SPIN49], HIPS)
    slots = tuple(SPIN49.index(name) for name in names)
    mocap = mpi or store.manifest.dataset == "human36m" or not store.has_smpl[rows].any()
    if mocap:
        labelled = store.has_3d[rows] & store.joints3d_valid[rows][:, list(slots)].all(axis=1)
    else:
        labelled = store.has_smpl[rows]
    return _Kind(rows, valid & labelled, mocap, slots, pelvis)


def score(
    prediction: SMPLParams | NDArray[np.float64],
    truth: Truth,
    body: Body,
    *,
    frames: int,
    protocols: Sequence[str] = ("corrected",),
    vertices: bool = False,
) -> dict[str, dict[str, Any]]:
    """Errors of one track, by protocol: arrays frame_index, mpjpe, pa_mpjpe, accel, and mpvpe with ``vertices``.

    Metres (accel: m / frame^2). ``prediction``: the N bodies in order, or only their joints (N, J, 3), which must be
    the joints of the truth; then there is no mpvpe. ``accel`` has fewer values, because a frame needs two neighbours.
    """
    predicted = prediction if isinstance(prediction, np.ndarray) else predicted_joints(body, prediction, truth)
    out: dict[str, dict[str, Any]] = {}
    for protocol in protocols:
        order = prediction_order(len(truth.scored), frames, protocol=protocol)
        out[protocol] = joint_errors(predicted[order], truth, across_gaps=protocol == "official")
        if vertices and truth.smpl is not None and not isinstance(prediction, np.ndarray):
            out[protocol]["mpvpe"] = vertex_errors(body, prediction, truth, order)
    return out


def joint_errors(predicted: NDArray[np.float64], truth: Truth, *, across_gaps: bool) -> dict[str, Any]:
    """Arrays frame_index, mpjpe, pa_mpjpe and accel of the rows that count, for predicted joints (N, J, 3) in order.

    ``across_gaps``: whether accelerations count whose neighbours are unscored, or at another distance in time.
    """
    scored = truth.scored
    return {
        "frame_index": truth.frame_index[scored],
        "mpjpe": mpjpe(predicted, truth.joints, pelvis=truth.pelvis)[scored],
        "pa_mpjpe": pa_mpjpe(predicted[scored], truth.joints[scored]),
        "accel": accel_error(predicted, truth.joints, pelvis=truth.pelvis)[_accelerations(truth, across_gaps)],
    }


def _accelerations(truth: Truth, across_gaps: bool) -> NDArray[np.bool_]:
    """Which of the N - 2 accelerations count."""
    scored = truth.scored
    if across_gaps:
        return scored[1:-1]
    even = np.diff(truth.frame_index) == usual_step(truth.frame_index)
    return scored[1:-1] & scored[:-2] & scored[2:] & even[:-1] & even[1:]


def predicted_joints(body: Body, params: SMPLParams, truth: Truth) -> NDArray[np.float64]:
    """The joints (N, J, 3) of predicted bodies that are compared with the truth's."""
    return _joints(body, params, truth.slots)


@torch.no_grad()
def _joints(body: Body, params: SMPLParams, slots: tuple[int, ...] | None) -> NDArray[np.float64]:
    """(N, J, 3): the joints ``slots`` of the 49, or the 14 of the H36M regressor."""
    device = body.mean_pose.device
    parts = []
    for start in range(0, len(params.rotmats), BODIES_AT_ONCE):
        rotmats, betas = (x[start : start + BODIES_AT_ONCE].to(device) for x in params[:2])
        joints = body.joints14(rotmats, betas) if slots is None else body.joints(rotmats, betas)[:, list(slots)]
        parts.append(joints.cpu().numpy().astype(np.float64))
    return np.concatenate([np.empty((0, 14 if slots is None else len(slots), 3)), *parts])


@torch.no_grad()
def vertex_errors(body: Body, pred: SMPLParams, truth: Truth, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """MPVPE of pred[order] (N) against the truth, in the rows that count. Computed for a few bodies at a time."""
    device, smpl = body.mean_pose.device, truth.smpl
    assert smpl is not None
    errors = []
    for rows in torch.arange(len(order)).split(BODIES_AT_ONCE // 8):
        chosen = torch.from_numpy(order)[rows]
        p = body(pred.rotmats[chosen].to(device), pred.betas[chosen].to(device)).vertices
        t = truth.body(smpl.rotmats[rows].to(device), smpl.betas[rows].to(device)).vertices
        errors.append(mpvpe(p.cpu().numpy(), t.cpu().numpy()))
    return np.concatenate(errors)[truth.scored]
