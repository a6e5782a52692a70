"""The command that writes a checkpoint as the official code would."""

from glot import cli
from glot.models.spec import OfficialSpec


def main(spec: OfficialSpec) -> None:
    """Write a checkpoint as the release of its model would have saved it, so that the released evaluation can read it.

    For GLoT, TCMR, MPS-Net, VIBE and MEVA, in the sizes of their releases. GLoT's release computes what a model trained
    with --set model.hscr_global_pose=official computes. The file holds your copy of SMPL (the official layout does), so
    SMPL's licence applies to it. This project reads the file back with all its settings.

    Example: `python -m glot.official --checkpoint runs/table1/best --body data/smpl --out model_best.pth.tar`
    """
    spec = spec.with_body()

    from glot.models.released.published_files import write_official

    written = write_official(spec)
    print(f"{spec.out}: {written.tensors} tensors of {spec.checkpoint}")
    for note in written.notes:
        print(note)


def command() -> None:
    """Entry point of ``glot-official``."""
    cli.run(main)


if __name__ == "__main__":
    command()
