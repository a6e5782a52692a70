"""The options in; the networks and the body that they name, loaded once for all videos, out."""

from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from glot.capture.capture_options import CaptureOptions
from glot.capture.reconstruction import Reconstruction
from glot.features.backbones.backbone import Backbone, load_backbone
from glot.features.backbones.backbone_kinds import needed_weights
from glot.features.backbones.blazepose import Landmarks
from glot.features.backbones.extractor import Extractor
from glot.features.schema import Manifest
from glot.home import body_for
from glot.human.body import Body, load_body, require_body
from glot.location import file_hash
from glot.models.checkpoint import Checkpoint
from glot.models.inference import checkpoint_path, load_model_for
from glot.models.prediction.track_predictors import TrackPredictor, track_predictor
from glot.people.detection import PersonDetector, load_detector
from glot.people.video import Timeline


class Studio:
    """The networks and the body. InputError if they do not fit together.

    If no body was given and the model needs SMPL, ``options`` has the body of $GLOT_HOME. ``settings`` are the values
    on which results depend; they are stored in the summary, so that a change is noticed.
    """

    def __init__(self, options: CaptureOptions) -> None:
        choice = options.choice
        self.backbone: Backbone = load_backbone(options.backbone, needed_weights(choice), crop_rule=options.crop_rule)
        self.checkpoint: Checkpoint = load_model_for(options.checkpoint, self._manifest())
        body = body_for(options.body, self.checkpoint.info["body"])
        self.options = replace(options, body=body and body.absolute())
        self.body: Body = load_body(body)
        require_body(self.body, self.checkpoint.info["body"], "model")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.settings = self._settings()

    # These are loaded when they are first needed. For example, --tracks needs no detector.
    @cached_property
    def detector(self) -> PersonDetector:
        """The person detector."""
        return load_detector(self.options.detector_weights, tiles=self.options.tiles)

    @cached_property
    def landmarks(self) -> Landmarks:
        """BlazePose's landmark network."""
        return Landmarks()

    @cached_property
    def extractor(self) -> Extractor:
        """The backbone, ready for the device."""
        return Extractor(self.backbone, device=self.device)

    @cached_property
    def model(self) -> TrackPredictor:
        """The temporal model, ready for the device. It is made once for all people of all videos."""
        return track_predictor(self.checkpoint.model.to(self.device))

    def reconstruction(self, timeline: Timeline) -> Reconstruction:
        """The reconstruction for a video with this timeline."""
        options = self.options
        return Reconstruction(
            self.model,
            self.body,
            timeline,
            fit=options.fit,
            smooth=options.smooth,
            focal=options.focal,
            rule=self.backbone.crop_rule,
        )

    def _manifest(self) -> Manifest:
        """The manifest that a feature set made with this backbone would have."""
        return Manifest("video", "test", 0, 0, self.backbone.describe(), crop={}, body={}, parts=[])

    def _settings(self) -> dict[str, Any]:
        options = {option.name: getattr(self.options, option.name) for option in fields(CaptureOptions)}
        checkpoint = checkpoint_path(self.options.checkpoint, self.backbone.name)
        weights = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
        return {
            **{name: _describe(value) if isinstance(value, Path) else value for name, value in options.items()},
            "checkpoint": {"name": checkpoint.name, "hash": file_hash(weights)},
            "backbone": self._manifest().backbone,
            "body": {"name": self.body.name, "hash": self.body.file_hash},
        }


def _describe(path: Path) -> dict[str, str]:
    """A file by its name and content; a folder by its name."""
    return {"name": path.name} | ({"hash": file_hash(path)} if path.is_file() else {})
