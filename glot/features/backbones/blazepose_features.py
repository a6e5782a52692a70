"""BlazePose's landmark network as a backbone: 256 px crops to 312 features, one crop at a time on a CPU."""

from pathlib import Path

from glot.errors import InputError
from glot.features.backbones.backbone import Backbone, Network
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind
from glot.features.backbones.blazepose import FEATURES, LANDMARK_SIZE, Landmarks, features_hash, landmark_heads
from glot.features.backbones.blazepose_files import LANDMARK_FILE, network_file
from glot.human.crop_rules import CropRule


class BlazePose(Backbone):
    """Always one thread, float32. ``content``: the network's file; features of two files have different hashes."""

    def __init__(self, kind: BackboneKind, content: bytes, *, weights_name: str) -> None:
        super().__init__(
            kind,
            weights_name=weights_name,
            hash=features_hash(content),
            feature_size=FEATURES,
            crop_rule=CropRule(size=LANDMARK_SIZE),
        )
        self.content = content

    def network(self, *, device: str, precision: str) -> Network:
        landmarks = Landmarks(self.content)
        return lambda crops: landmarks(crops).features


def load(choice: BackboneChoice) -> BlazePose:
    """BlazePose with the landmark network in a file.

    Without a file it is mediapipe's, which is fetched here, so that a failure is reported before any worker starts.
    """
    if choice.weights is None:
        return BlazePose(choice.kind, network_file(LANDMARK_FILE), weights_name=LANDMARK_FILE)
    return BlazePose(choice.kind, _content(choice.weights), weights_name=choice.weights.name)


def _content(path: Path) -> bytes:
    """The content of a landmark network's file; InputError for another file."""
    if not path.is_file():
        raise InputError(f"--weights {path}: no such file; give a landmark network, such as pose_landmark_heavy.tflite")
    try:
        content = path.read_bytes()
        landmark_heads(content)
    except OSError as error:
        raise InputError(f"--weights {path}: cannot be read ({error})") from None
    except ValueError as error:
        raise InputError(
            f"--weights {path}: {error}; give a landmark network of BlazePose, such as pose_landmark_heavy.tflite, or "
            "the backbone of these weights as --backbone"
        ) from None
    return content
