"""The page of a sweep: means over seeds, the paper's numbers, differences; and pictures of every kind of space."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import pytest

from tuning import plots, registry, results
from tuning.outcomes import FAILED, FINISHED, STOPPED, Outcome
from tuning.results import Sweep
from tuning.spaces import SPACES, Axis, Errors, Point, Space


def outcome(number: int, point: Point, seed: int = 1, *, error: float = 50.0, how: str = FINISHED) -> Outcome:
    metrics = {f"val_{name}": error + i for i, name in enumerate(("pa_mpjpe", "mpjpe", "mpvpe", "accel"))}
    return Outcome(number, dict(point), seed, how, metrics, reason="after epoch 2" if how == STOPPED else "")


def test_a_row_is_the_mean_over_seeds_beside_the_papers() -> None:
    trials = [outcome(0, {"model.mask_ratio": 0.5}, seed, error=error) for seed, error in ((1, 60.0), (2, 61), (3, 65))]
    trials += [outcome(1, {"model.mask_ratio": 0.0}, error=70.0), outcome(2, {"model.mask_ratio": 0.3}, how=STOPPED)]
    sweep = Sweep(SPACES["mask_ratio"], trials, "3dpw, validation split", {"recipe": "open_sample"})
    head, body = results.cells(sweep)
    assert head[:4] == ["mask_ratio", "PA-MPJPE", "paper", "diff."] and head[-1] == "notes"
    assert [line[0] for line in body] == ["0", "0.3", "0.5"]
    m, s = mean([60, 61, 65]), stdev([60, 61, 65])
    assert body[2][1:4] == [f"{m:.1f} ± {s:.1f}", "50.6", f"{m - 50.6:+.1f}"]
    assert body[0][1:4] == ["70.0", "51.7", "+18.3"]
    assert body[1][1:4] == ["–", "–", "–"] and body[1][-1] == "seed 1 stopped early after epoch 2"
    best = sweep.best()
    assert best and (best.point, best.seed) == ({"model.mask_ratio": 0.5}, 1)
    page = results.markdown(sweep, "report.png")
    assert (
        "another dataset" in page and "| 0.5 | 62.0 ± 2.6 | 50.6 | +11.4 |" in page and "4 finished, 1 stopped" in page
    )
    table = results.csv_table(sweep).splitlines()
    assert table[0].startswith("model.mask_ratio,pa_mpjpe,pa_mpjpe_deviation,pa_mpjpe_paper,pa_mpjpe_difference,mpjpe")
    assert table[3].startswith("0.5,62.0,2.646,50.6,11.4,") and table[3].endswith(",3")


def test_a_space_that_is_not_in_the_paper_has_no_columns_of_the_paper() -> None:
    space = Space("mine", (Axis("model.dropout", (0, 0.1)),))
    sweep = Sweep(space, [outcome(0, {"model.dropout": 0.1}), outcome(1, {"model.dropout": 0}, how=FAILED)], "x", {})
    assert results.cells(sweep)[0][:3] == ["dropout", "PA-MPJPE", "MPJPE"]
    assert "paper" not in results.markdown(sweep)


def test_validation_without_smpl_parameters_has_no_mpvpe(tmp_path: Path) -> None:
    """As on Human3.6M and MPI-INF-3DHP; a validation set may even have no error at all."""

    def without(number: int, point: Point, *names: str, error: float) -> Outcome:
        whole = outcome(number, point, error=error)
        return replace(whole, metrics={k: v for k, v in whole.metrics.items() if k not in names})

    trials = [
        without(0, {"model.mask_ratio": 0.5}, "val_mpvpe", error=60),
        without(1, {"model.mask_ratio": 0.25}, "val_mpvpe", error=50),
    ]
    trials.append(replace(outcome(2, {"model.mask_ratio": 0.0}), metrics={}))
    sweep = Sweep(SPACES["mask_ratio"], trials, "human36m, validation split", {})
    best = sweep.best()
    assert best and best.point == {"model.mask_ratio": 0.25}
    head, body = results.cells(sweep)
    at = head.index("MPVPE")
    assert [line[at : at + 3] for line in body] == [["–", "98.0", "–"], ["–", "97.5", "–"], ["–", "96.3", "–"]]
    assert [line[1] for line in body] == ["–", "50.0", "60.0"]
    assert ",,,97.5,," in results.csv_table(sweep) and "PA-MPJPE 50.0 mm" in results.markdown(sweep)
    plots.plot(sweep, tmp_path / "one.png")
    wide = [replace(each, point={"model.frames": 16, "model.nearby_frames": 2 + each.number}) for each in trials]
    plots.plot(Sweep(SPACES["windows"], wide, "", {}), tmp_path / "two.png")
    wide = [replace(each, point=each.point | {"model.mask_ratio": 0.5, "lr": 1e-4}) for each in wide]
    plots.plot(Sweep(SPACES["joint"], wide, "", {}), tmp_path / "many.png")


def test_a_table_without_a_column_leaves_its_cells_empty(tmp_path: Path) -> None:
    """VIBE and MEVA have no MPVPE in Table 1: no NaN reaches a file, and the tags bring the sweep back."""
    space = SPACES["models"]
    trials = [outcome(i, point) for i, point in enumerate(space.grid())]
    sweep = Sweep(space, trials, "validation", {})
    head, body = results.cells(sweep)
    at = head.index("MPVPE")
    assert [line[0] for line in body] == ["vibe", "meva", "tcmr", "mps_net", "glot"]
    assert [line[at + 1] for line in body] == ["–", "–", "102.9", "99.7", "96.3"]
    assert [line[at + 2] for line in body] == ["–", "–", "-50.9", "-47.7", "-44.3"]
    tags = registry.sweep_tags(space, "validation")
    for text in (json.dumps(results.plain_table(sweep)), results.csv_table(sweep), *tags.values()):
        assert "nan" not in text.lower()
    stored = json.loads(tags[registry.SPACE_TAG])["paper"]
    assert {(model,): Errors(*errors) for model, *errors in stored} == space.paper


@pytest.mark.parametrize("name", ["models", "mask_ratio", "mask_token", "detach", "windows", "joint"])
def test_every_kind_of_space_has_a_picture(tmp_path: Path, name: str) -> None:
    space = SPACES[name]
    points = space.grid() if name != "joint" else [
        {"model.mask_ratio": r, "model.frames": 16, "model.nearby_frames": 2, "lr": 1e-4} for r in (0.0, 0.5)
    ]  # fmt: skip
    trials = [outcome(i, point, seed, error=50 + i + seed) for i, point in enumerate(points) for seed in (1, 2)]
    plots.plot(Sweep(space, trials, "validation", {}), tmp_path / "all.png")
    plots.plot(Sweep(space, [outcome(0, points[0], how=FAILED)], "validation", {}), tmp_path / "none.png")
    for file in ("all.png", "none.png"):
        assert (tmp_path / file).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_metric_without_published_values_has_no_axis_for_them() -> None:
    trials = [outcome(i, {"model": model}) for i, model in enumerate(("vibe", "meva"))]
    figure, panels = plots.pyplot.subplots(1, 4)
    plots._curves(Sweep(SPACES["models"], trials, "validation", {}), panels)
    beside = [axis for axis in figure.axes if axis not in list(panels)]
    assert [axis.get_ylabel() for axis in beside] == ["paper, mm", "paper, mm", "paper, mm/frame²"]
    plots.pyplot.close(figure)
