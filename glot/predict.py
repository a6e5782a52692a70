"""The command that predicts: videos in, a folder of bodies each out; or a feature set in, SMPL parameters out."""

from glot import cli
from glot.capture.spec import PredictSpec


def main(spec: PredictSpec) -> int:
    """Reconstruct the bodies of all people in a video, frame by frame.

    **Example**: `python -m glot.predict walk.mp4 --out bodies` writes the folder bodies/walk/. It holds for each person
    person-1.npz and person-1.parquet (pose, betas, cameras, joints3d, keypoints2d, boxes) and a still, person-1.png;
    overlay.mp4, which shows the bodies over the video and from the side; and summary.json. The command needs nothing
    but the video; it downloads BlazePose's networks once.

    With SMPL, SPIN's weights and a published checkpoint: `--body body --backbone resnet50 --weights
    body/spin_model_checkpoint.pth.tar --checkpoint model.pth.tar`.

    The result of a video appears when it is complete. For a folder of videos, the same command continues after any
    interruption; pipelines/predict_videos.py works on several videos at once. Exit code 1: in at least
    one video nobody was found, or a video of the folder cannot be read.

    From extracted features: `python -m glot.predict --features features --checkpoint runs/first/best
    --out bodies.parquet` writes one row for each frame: track_id, frame_index, pose (24 x 3 axis-angle), betas (10),
    cam (s, tx, ty of the crop), bbox, crop_scale.
    """
    if spec.features is not None:
        from glot.capture.feature_predictions import predict_features

        predict_features(spec)
        return 0
    from glot.capture.one_by_one import predict_videos

    return predict_videos(spec)


def command() -> None:
    """Entry point of ``glot-predict``."""
    cli.run(main)


if __name__ == "__main__":
    command()
