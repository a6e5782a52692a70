"""The paper's rows: every one belongs to a recipe of its model, and a model is never shown beside another's row."""

import pytest

from glot.model_configs import MODELS
from glot.recipes import RECIPES
from glot.scoring.metric_names import METRICS
from glot.scoring.paper_rows import PAPER, paper_row


@pytest.mark.parametrize(("dataset", "recipe"), PAPER)
def test_a_row_belongs_to_a_recipe_of_its_model(dataset: str, recipe: str) -> None:
    row = PAPER[dataset, recipe]
    assert RECIPES[recipe]().model.kind == row.model
    assert paper_row(dataset, recipe, row.model) is row
    assert row.errors and row.errors.keys() <= METRICS.keys()
    assert ("mpvpe" in row.errors) <= (dataset == "3dpw")


def test_a_model_under_another_recipe_gets_its_own_row() -> None:
    assert paper_row("3dpw", "table2_3dpw", "tcmr") is PAPER["3dpw", "tcmr_table2_3dpw"]
    assert paper_row("human36m", "open_sample", "mps_net") is PAPER["human36m", "mps_net_table1_h36m_mpii3d"]
    assert paper_row("3dpw", "open_sample") is PAPER["3dpw", "table1_3dpw"]
    for model in MODELS:
        found = paper_row("3dpw", "table1_3dpw", model)
        assert found is not None and found.model == model
        assert paper_row("video", "table1_3dpw", model) is None


def test_glot_has_the_least_error_of_every_table() -> None:
    """As the paper says: in PA-MPJPE and MPJPE it is the best of the five, on every dataset and in both tables."""
    for table in ("table1", "table2"):
        for dataset in {dataset for dataset, _ in PAPER}:
            rows = [row for (where, name), row in PAPER.items() if where == dataset and table in name]
            for metric in ("pa_mpjpe", "mpjpe"):
                assert not rows or min(rows, key=lambda row: row.errors[metric]).model == "glot"


def test_both_accelerations_of_vibe_are_said() -> None:
    row = PAPER["3dpw", "vibe_table2_3dpw"]
    assert row.errors["accel"] == 27.1 and "27.1" in row.note and "28.0" in row.note
