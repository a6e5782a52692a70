"""The demo: finished stages are not run again, failed ones are named, the summary holds what was measured."""

import json
from pathlib import Path

import pytest

from glot.errors import InputError
from glot.scoring.metric_names import METRICS
from pipelines.demo import DemoSpec, Stage, run_stage, stages, summarise


def counting_stage(tmp_path: Path, *, code: int = 0, note: str = "") -> Stage:
    """A command that appends a line to a file each time it runs."""
    script = f"open({str(tmp_path / 'ran')!r}, 'a').write('x{note}'); raise SystemExit({code})"
    return Stage("count", "counts", ["-c", script], tmp_path / "ran")


def test_a_stage_runs_once_and_again_when_its_command_or_product_changes(tmp_path: Path) -> None:
    record = tmp_path / "stages.json"
    stage = counting_stage(tmp_path)
    first = run_stage(stage, record)
    assert run_stage(stage, record) == pytest.approx(first, abs=0.06)  # rounded to tenths in the record
    assert (tmp_path / "ran").read_text() == "x"
    run_stage(counting_stage(tmp_path, note="y"), record)
    assert (tmp_path / "ran").read_text() == "xxy"
    (tmp_path / "ran").unlink()
    run_stage(counting_stage(tmp_path, note="y"), record)
    assert (tmp_path / "ran").read_text() == "xy"


def test_options_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--out"):
        DemoSpec(out=tmp_path / "file")
    with pytest.raises(InputError, match="--workers 0"):
        DemoSpec(workers=0)


def test_a_failed_stage_is_named_and_not_taken_for_done(tmp_path: Path) -> None:
    record = tmp_path / "stages.json"
    for _ in range(2):
        with pytest.raises(InputError, match="'count' ended with exit code 3"):
            run_stage(counting_stage(tmp_path, code=3), record)
    assert (tmp_path / "ran").read_text() == "xx" and not record.exists()


def test_the_summary_holds_the_four_rows_and_the_counts(tmp_path: Path) -> None:
    row = dict.fromkeys(METRICS, 12.3456)
    report = {"corrected": {**row, "frames": 7}, "official": row, "mean_pose": row, "untrained": row}
    report["linear_probe"] = {name: value for name, value in row.items() if name != "mpvpe"}  # a probe has no vertices
    (tmp_path / "evaluation.json").write_text(json.dumps(report))
    for split, rows in (("train", 30), ("test", 12)):
        folder = tmp_path / "features" / "3dpw" / split
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"rows": rows, "tracks": 2}))
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "report.csv").write_text("model.mask_ratio,pa_mpjpe\n0,60\n0.5,61\n")
    summary = summarise(tmp_path, {"train": 61.23})
    assert summary["test"] == summary["mean_pose"] == summary["untrained"] == dict.fromkeys(METRICS, 12.35)
    assert summary["linear_probe"] == {"pa_mpjpe": 12.35, "mpjpe": 12.35, "accel": 12.35}
    assert (summary["frames"], summary["tracks"], summary["sweep_runs"]) == (42, 4, 2)
    assert summary["seconds"] == {"train": 61.2}


def test_every_stage_starts_where_the_one_before_ended(tmp_path: Path) -> None:
    planned = stages(tmp_path, workers=2)
    assert [stage.name for stage in planned] == ["sample", "extract", "train", "evaluate", "sweep", "render"]
    checkpoint = str(tmp_path / "train" / "best")
    for stage in planned[3:]:
        needs = {str(tmp_path / "features"), checkpoint} if stage.name != "sweep" else {str(tmp_path / "features")}
        assert needs <= set(stage.arguments)
