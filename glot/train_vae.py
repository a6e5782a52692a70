"""The command that trains MEVA's motion VAE: sets of real motions in, a motion VAE for ``glot.train_ray --vae`` out."""

from glot import cli
from glot.training.vae.spec import TrainVAESpec


def main(spec: TrainVAESpec) -> None:
    """Train the motion VAE that MEVA decodes its coarse motion with.

    It learns from windows of 90 frames of real motions, mirrored and turned at random. About every tenth motion is held
    out; the angle to these motions, in degrees, is printed beside that of a constant pose. The few motions that come
    with the project show that it works; AMASS is what MEVA was trained with. If the run is interrupted, the same
    command with `--resume` continues from its last checkpoint.

    Examples: `python pipelines/make_motion_set.py`, then `python -m glot.train_vae`

    `python -m glot.train_vae --motions amass --steps 1000000 --batch 512 --lr 1e-4`, then `python -m glot.train_ray
    --set model=meva --vae runs/vae_latent_only`
    """
    spec.check_places()

    from glot.training.vae.vae_training import train_vae

    metrics = train_vae(spec)
    print(
        f"best at step {metrics['step']:.0f}: held out motions {metrics['val_error']:.2f} degrees (root "
        f"{metrics['val_root']:.2f}, other joints {metrics['val_joints']:.2f}); mean pose "
        f"{metrics['mean_pose_error']:.2f} ({metrics['mean_pose_root']:.2f}, {metrics['mean_pose_joints']:.2f}); each "
        f"window's own mean pose {metrics['still_error']:.2f} ({metrics['still_root']:.2f}, "
        f"{metrics['still_joints']:.2f})\nmotion VAE: {spec.run_folder / 'best'}"
    )


def command() -> None:
    """Entry point of ``glot-train-vae``."""
    cli.run(main)


if __name__ == "__main__":
    command()
