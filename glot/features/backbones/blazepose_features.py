"""BlazePose's landmark network as a backbone: 256 px crops to 312 features, one crop at a time on a CPU."""

from glot.features.backbones.backbone import Backbone, Network
from glot.features.backbones.backbone_kinds import BackboneChoice, BackboneKind
from glot.features.backbones.blazepose import FEATURES, LANDMARK_SIZE, Landmarks, features_hash
from glot.features.backbones.blazepose_files import LANDMARK_FILE, network_file
from glot.human.crop_rules import CropRule


class BlazePose(Backbone):
    """Always one thread, float32."""

    def __init__(self, kind: BackboneKind) -> None:
        super().__init__(
            kind,
            weights_name=LANDMARK_FILE,
            hash=features_hash(),
            feature_size=FEATURES,
            crop_rule=CropRule(size=LANDMARK_SIZE),
        )

    def network(self, *, device: str, precision: str) -> Network:
        landmarks = Landmarks()
        return lambda crops: landmarks(crops).features


def load(choice: BackboneChoice) -> BlazePose:
    """BlazePose, whose network is fetched here, so that a failure is reported before any worker starts."""
    network_file(LANDMARK_FILE)
    return BlazePose(choice.kind)
