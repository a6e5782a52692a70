"""A dataset and a recipe in, the errors that the paper reports for them out."""

# Tables 1 and 2 of the paper, by dataset and recipe: mm, Accel mm / frame^2.
PAPER = {
    ("3dpw", "table1_3dpw"): {"mpjpe": 80.7, "pa_mpjpe": 50.6, "mpvpe": 96.3, "accel": 6.6},
    ("3dpw", "table2_3dpw"): {"mpjpe": 89.9, "pa_mpjpe": 53.5, "mpvpe": 107.8, "accel": 6.7},
    ("mpi_inf_3dhp", "table1_h36m_mpii3d"): {"mpjpe": 93.9, "pa_mpjpe": 61.5, "accel": 7.9},
    ("human36m", "table1_h36m_mpii3d"): {"mpjpe": 67.0, "pa_mpjpe": 46.3, "accel": 3.6},
}


def paper_row(dataset: str, recipe: str) -> dict[str, float] | None:
    """The paper's errors on ``dataset`` with that recipe, else with the first recipe it reports, else None."""
    of_dataset = [row for (name, _), row in PAPER.items() if name == dataset]
    return PAPER.get((dataset, recipe)) or (of_dataset[0] if of_dataset else None)
