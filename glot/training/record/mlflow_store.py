"""Which MLflow store a command logs into, what it logs there, and the command that shows it. Does not import MLflow."""

import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

NONE = "none"  # --mlflow none


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """What a run is in MLflow. The run is found again by its key, so that every start of a job logs into the same."""

    uri: str
    experiment: str
    key: str
    name: str
    params: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    parent: str = ""  # id of the run that it is nested under


def default_uri(folder: Path) -> str:
    """The sqlite store in ``folder``."""
    path = str(folder.resolve() / "mlflow.db")
    return "sqlite:///" + path.replace("%", "%25").replace("?", "%3F")  # what else a URI escapes, SQLAlchemy leaves


def database_of(uri: str) -> Path | None:
    """The file of an sqlite store; None for another kind of store."""
    return Path(unquote(uri.removeprefix("sqlite:///"))) if uri.startswith("sqlite:///") else None


def chosen_uri(given: str, out: Path) -> str:
    """The store of a run in the folder ``out``. ``given``: the value of --mlflow; "" means a store beside ``out``.

    "" is returned for --mlflow none.
    """
    return "" if given == NONE else given or default_uri(out.resolve().parent)


def shown(uri: str) -> str:
    """The address for messages, without a password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def ui_command(uri: str) -> str:
    """The shell command that opens MLflow's pages on a store; the address of a server, which has pages of its own."""
    if uri.startswith(("http://", "https://")):
        return shown(uri)
    return f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shlex.quote(uri)}"
