"""The rounds of a run of the motion VAE in; a table and a picture of its curves out, and a table of joints."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from glot.human.joints import SMPL_JOINTS
from glot.location import write_whole
from glot.training.record.curves import write_table

TABLE, PICTURE, JOINT_TABLE = "epochs.csv", "epochs.png", "joints.csv"
LINES = {
    "val_error": ("the VAE, all joints", "C0", "-"),
    "val_joints": ("the VAE, all but the root", "C0", "--"),
    "mean_pose_error": ("mean pose, all joints", "C1", "-"),
    "mean_pose_joints": ("mean pose, all but the root", "C1", "--"),
    "still_error": ("each window's mean pose, all joints", "C2", "-"),
    "still_joints": ("each window's mean pose, all but the root", "C2", "--"),
}


def write_curves(rounds: list[dict[str, float]], out: Path) -> None:
    """Writes the rounds as OUT/epochs.csv and OUT/epochs.png."""
    write_table(rounds, out / TABLE)
    steps = [row["step"] for row in rounds]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), constrained_layout=True)
    for number, term in enumerate(("loss", "error", "root", "kl")):
        style = {"color": "black", "linewidth": 2} if term == "loss" else {"color": f"C{number}"}
        left.plot(steps, [row[f"train_{term}"] for row in rounds], label=term, **style)
    left.set(title="training loss of a window, weighted terms", xlabel="step", yscale="log")
    for name, (label, colour, style_of_line) in LINES.items():
        right.plot(steps, [row[name] for row in rounds], color=colour, linestyle=style_of_line, label=label)
    right.set(title="angle to held out motions, degrees", xlabel="step", ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    pyplot.close(figure)
    write_whole(out / PICTURE, picture.getvalue())


def write_joints(columns: dict[str, list[float]], out: Path) -> None:
    """Writes OUT/joints.csv: a row for each joint, a column for each kind of error in degrees."""
    lines = [",".join(("joint", *columns))]
    for number, joint in enumerate(SMPL_JOINTS):
        lines.append(",".join((joint, *(f"{values[number]:.2f}" for values in columns.values()))))
    write_whole(out / JOINT_TABLE, ("\n".join(lines) + "\n").encode())
