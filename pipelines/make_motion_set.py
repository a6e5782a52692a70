"""The command that makes a set of real motions."""

from glot import cli
from pipelines.motions.set_spec import MakeMotionSetSpec


def main(spec: MakeMotionSetSpec) -> None:
    """Put motion capture files into a set that a motion discriminator and a motion VAE learn from.

    Motions are brought to 30 frames a second. Without options, the set is made of the motions that come with the
    project, which anyone may use; AMASS gives far more.

    Examples: `python pipelines/make_motion_set.py`

    `python pipelines/make_motion_set.py --motions data/amass`, then `python -m glot.train_ray --set model=vibe --set
    discriminator.motions=amass`
    """
    from pipelines.motions.set_writing import make_motion_set

    facts = make_motion_set(spec)
    for entry in facts.skipped[:5]:
        print(f"left out: {entry['what']}: {entry['reason']}")
    if len(facts.skipped) > 5:
        print(f"left out: {len(facts.skipped) - 5} more; the file's metadata names them")
    print(f"{spec.folder}: {facts.motions} motions, {facts.frames} frames ({facts.frames / 108_000:.2f} hours)")


def command() -> None:
    """Entry point of ``glot-make-motion-set``."""
    cli.run(main)


if __name__ == "__main__":
    command()
