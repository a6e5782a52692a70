"""Which MLflow store a command logs into, and the command that shows the store. Does not import MLflow."""

import sys
from pathlib import Path

NONE = "none"  # --mlflow none


def default_uri(folder: Path) -> str:
    """The sqlite store in ``folder``."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def chosen_uri(given: str, out: Path) -> str:
    """The store of a run in the folder ``out``. ``given``: the value of --mlflow; "" means a store beside ``out``.

    "" is returned for --mlflow none.
    """
    return "" if given == NONE else given or default_uri(out.resolve().parent)


def ui_command(uri: str) -> str:
    """The shell command that opens MLflow's pages on a store."""
    return f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {uri}"
