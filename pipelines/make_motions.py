"""The command that derives the shipped motions."""

from glot import cli
from pipelines.motions.spec import MakeMotionsSpec


def main(spec: MakeMotionsSpec) -> None:
    """Convert the humanoid motion clips of a pybullet wheel to SMPL's joints.

    Only needed to rebuild the file that is shipped with the project.

    Example: `pip download --no-deps pybullet==3.2.7` then `python pipelines/make_motions.py`
    """
    from pipelines.motions.deepmimic import convert_wheel

    frames = convert_wheel(spec)
    for clip, count in frames.items():
        print(f"{clip}: {count} frames")
    print(f"{spec.out}: {len(frames)} clips, {spec.out.stat().st_size / 1024:.0f} KiB")


def command() -> None:
    """Entry point of ``python pipelines/make_motions.py``."""
    cli.run(main)


if __name__ == "__main__":
    command()
