"""The command that fetches BlazePose's networks."""

from glot import cli


def main() -> None:
    """Fetch BlazePose's networks (9 MB, Apache-2.0) out of the wheel of mediapipe 0.10.21, with pip from its index.

    They go to $GLOT_CACHE, else $XDG_CACHE_HOME/glot, else ~/.cache/glot. Commands that need them fetch them the first
    time. On a machine without a network, copy this folder from another machine.

    Example: `python -m glot.blazepose`
    """
    from glot.features.backbones.blazepose_files import SHA256, network_file
    from glot.location import cache_folder

    for name in SHA256:
        print(f"{cache_folder() / name}: {len(network_file(name)):,} bytes, as expected")


def command() -> None:
    """Entry point of ``python -m glot.blazepose``."""
    cli.run(main)


if __name__ == "__main__":
    command()
