"""Bodies of people in; motion files, and files for other programs, out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from glot.capture.capture_options import CaptureOptions
from glot.human.body import Body
from glot.motion.bvh import write_bvh
from glot.motion.gltf import write_gltf
from glot.motion.motion_files import read_motion, write_motion
from glot.motion.peers_pkl import write_peers_pkl
from glot.motion.person_motion import Motion
from glot.people.landmarks import Person


def person_file(folder: Path, person: Person, suffix: str) -> Path:
    """The file about a person: person-1.npz, for example."""
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in person.name)
    return folder / f"person-{name}{suffix}"


def write_person(folder: Path, pieces: Iterator[Motion], person: Person) -> list[str]:
    """Writes the motion files of one person; returns their names."""
    paths = [person_file(folder, person, suffix) for suffix in (".npz", ".parquet")]
    write_motion(pieces, *paths)
    return [path.name for path in paths]


def write_exports(folder: Path, people: Sequence[Person], options: CaptureOptions, body: Body) -> list[str]:
    """Writes the formats of other programs that the options name, from the motion files; returns the names.

    Each format needs a person's whole motion in memory.
    """
    names = []
    paths = [person_file(folder, person, ".npz") for person in people]
    if options.bvh:
        for path in paths:
            write_bvh(path.with_suffix(".bvh"), read_motion(path), body)
            names.append(path.with_suffix(".bvh").name)
    if options.pkl or options.gltf:
        motions = [read_motion(path) for path in paths]
        if options.pkl:
            write_peers_pkl(folder / "people.pkl", motions, body)
            names.append("people.pkl")
        if options.gltf:
            write_gltf(folder / "people.glb", motions, body)
            names.append("people.glb")
    return names
