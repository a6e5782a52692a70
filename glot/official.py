"""The command that writes a checkpoint as the official code would."""

from glot import cli
from glot.models.spec import OfficialSpec


def main(spec: OfficialSpec) -> None:
    """Write a checkpoint as the official code would have saved it, so that its evaluation can read it.

    Possible for models that the official code can compute: train with --set model.hscr_global_pose=official. The file
    holds your copy of SMPL (the official layout does), so SMPL's licence applies to it.

    Example: `python -m glot.official --checkpoint runs/table1/best --body data/smpl --out model_best.pth.tar`
    """
    spec = spec.with_body()

    from glot.models.released.official_files import write_official

    tensors = write_official(spec)
    print(f"{spec.out}: {tensors} tensors of {spec.checkpoint}")


def command() -> None:
    """Entry point of ``glot-official``."""
    cli.run(main)


if __name__ == "__main__":
    command()
