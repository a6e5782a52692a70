"""A dataset, a recipe and a model in; the errors that the paper reports for that model out."""

from dataclasses import dataclass

from glot.scoring.metric_names import METRICS

Cells = tuple[float | None, ...]  # PA-MPJPE, MPJPE, MPVPE, Accel: mm, Accel mm / frame^2; None: not reported


@dataclass(frozen=True)
class PaperRow:
    """Errors of a model that were published, and where."""

    model: str  # the kind of glot.model_configs
    errors: dict[str, float]  # by metric; without those that were not reported
    source: str = "the paper"
    note: str = ""  # what a reader has to know about a number


def _rows(model: str, rows: dict[tuple[str, str], Cells], **about: str) -> dict[tuple[str, str], PaperRow]:
    return {
        key: PaperRow(model, {m: cell for m, cell in zip(METRICS, cells, strict=True) if cell is not None}, **about)
        for key, cells in rows.items()
    }


VIBE_ACCEL = (
    "Table 2's Accel of VIBE, 27.1, is the mean acceleration of VIBE's predictions; the acceleration error that VIBE "
    "prints beside it is 28.0"
)

# Tables 1 and 2 of the paper, by dataset and recipe. MEVA's three rows of Table 1 come from one training.
PAPER = {
    **_rows(
        "glot",
        {
            ("3dpw", "table1_3dpw"): (50.6, 80.7, 96.3, 6.6),
            ("3dpw", "table2_3dpw"): (53.5, 89.9, 107.8, 6.7),
            ("mpi_inf_3dhp", "table1_h36m_mpii3d"): (61.5, 93.9, None, 7.9),
            ("human36m", "table1_h36m_mpii3d"): (46.3, 67.0, None, 3.6),
        },
    ),
    **_rows(
        "tcmr",
        {
            ("3dpw", "tcmr_table1_3dpw"): (52.7, 86.5, 102.9, 7.1),
            ("3dpw", "tcmr_table2_3dpw"): (55.8, 95.0, 111.5, 7.0),
            ("mpi_inf_3dhp", "tcmr_table1_h36m_mpii3d"): (63.5, 97.3, None, 8.5),
            ("human36m", "tcmr_table1_h36m_mpii3d"): (52.0, 73.6, None, 3.9),
        },
    ),
    **_rows(
        "mps_net",
        {
            ("3dpw", "mps_net_table1_3dpw"): (52.1, 84.3, 99.7, 7.4),
            ("3dpw", "mps_net_table2_3dpw"): (54.0, 91.6, 109.6, 7.5),
            ("mpi_inf_3dhp", "mps_net_table1_h36m_mpii3d"): (62.8, 96.7, None, 9.6),
            ("human36m", "mps_net_table1_h36m_mpii3d"): (47.4, 69.4, None, 3.6),
        },
    ),
    **_rows(
        "vibe",
        {
            ("3dpw", "vibe_table1_3dpw"): (57.6, 91.9, None, 25.4),
            ("mpi_inf_3dhp", "vibe_table1_h36m_mpii3d"): (68.9, 103.9, None, 27.3),
            ("human36m", "vibe_table1_h36m_mpii3d"): (53.3, 78.0, None, 27.3),
        },
    ),
    **_rows("vibe", {("3dpw", "vibe_table2_3dpw"): (56.5, 93.5, 113.4, 27.1)}, note=VIBE_ACCEL),
    **_rows(
        "meva",
        {
            ("3dpw", "meva_table1_3dpw"): (54.7, 86.9, None, 11.6),
            ("mpi_inf_3dhp", "meva_table1_3dpw"): (65.4, 96.4, None, 11.1),
            ("human36m", "meva_table1_3dpw"): (53.2, 76.0, None, 15.3),
        },
    ),
    **_rows(
        "meva",
        {
            ("3dpw", "meva_published"): (51.9, None, None, None),
            ("mpi_inf_3dhp", "meva_published"): (62.6, None, None, None),
            ("human36m", "meva_published"): (48.1, None, None, None),
        },
        source="MEVA's README",
    ),
}


def paper_row(dataset: str, recipe: str, model: str = "glot") -> PaperRow | None:
    """The paper's row for a ``model`` on ``dataset``; None if it has none.

    It is the row of that recipe, or of the model's own recipe of that name: table2_3dpw of tcmr is tcmr_table2_3dpw. If
    there is neither, it is the first row of the model on the dataset.
    """
    of_model = {name: row for (where, name), row in PAPER.items() if where == dataset and row.model == model}
    return of_model.get(recipe) or of_model.get(f"{model}_{recipe}") or next(iter(of_model.values()), None)
