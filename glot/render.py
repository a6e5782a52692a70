"""The command that draws one track's bodies over its pictures: a checkpoint and features in, .png and .mp4 out."""

from glot import cli
from glot.pictures.spec import RenderSpec


def main(spec: RenderSpec) -> int:
    """Draw the predicted bodies of one track over its pictures: a contact strip (.png) and a video (.mp4).

    The video shows input, prediction and side view. The strip adds the ground truth, whose camera is fitted to the 2D
    joints. Bodies are placed by the model's output alone: no depth, no optimisation.

    `--attention` writes TRACK_attention.png instead: for each layer of the global encoder and decoder, which frame
    attends to which. The maps are means over the heads, of one window and of all windows of the track: once with every
    frame visible, and once with frames masked as in training. TRACK_attention.npz has the numbers of each head.
    `--compare` writes TRACK_compare.png and .mp4 instead: the global branch's body beside the corrected one, coloured
    by how far each part of it moved.

    `--compare` with two or more checkpoints draws the bodies of these models side by side: TRACK_models.png, .mp4, and
    .json with the errors of each frame and model. Bodies are red where they are far from the truth.

    Examples: `python -m glot.render --checkpoint runs/demo/train/best --features runs/demo/features
    --root runs/demo/data --out pictures`

    `python -m glot.render --compare open runs/tcmr/best runs/glot/best --names 'open,TCMR,GLoT' --moments 6`
    """
    spec.check_places()
    if spec.checkpoints:
        return main_of_several(spec)
    from glot.pictures.rendering import render

    done = render(spec)
    error = f", PA-MPJPE {done.error} mm" if done.error else ""
    print("\n".join([f"{done.track} ({done.why}){error}", *map(str, done.files)]))
    return 0


def main_of_several(spec: RenderSpec) -> int:
    from glot.pictures.several_models import render_models

    done = render_models(spec)
    models = [f"  {name}: {mean}" if mean else f"  {name}" for name, mean in done.means]
    print("\n".join([f"{done.track} ({done.why})", *models, *map(str, done.files)]))
    return 0


def command() -> None:
    """Entry point of ``glot-render``."""
    cli.run(main)


if __name__ == "__main__":
    command()
