"""Joins the Ray cluster of RAY_ADDRESS, or starts Ray on this machine; the same way for every command."""

import logging
import os
import socket
from typing import Any

from glot.errors import InputError

# Read by ray when it is imported, which no function here does before it is called.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# report() waits for the controller's poll (2 s by default), and prints need no decoration.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own tables, which no verbosity turns off,
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # and files: MLflow has the curves
# Libraries' own notices to driver logs; errors that concern us come as exceptions.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
OBJECT_STORE_BYTES = 200_000_000  # names and counts are all it ever holds


def connect(*, cpus: int | None = None, training: bool = False) -> bool:
    """True if Ray was joined or started by this call, False if this process had it already.

    With RAY_ADDRESS set (a submitted job has it) that cluster is joined; RAY_AUTH_MODE must then be the cluster's.
    Otherwise a Ray of our own is started, never somebody else's on this machine joined by accident. ``cpus`` is what
    the local one offers (all cores when None). ``training`` brings the workers' output here, and starts the local one
    with the dashboard's state service: without it Ray Train warns at every look at its own controller.
    """
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": training, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            _answers(address)
            ray.init(**quiet)
        except OSError as error:
            why = str(error).splitlines()[0]
            raise InputError(f"RAY_ADDRESS {address}: {why}; is it up, is RAY_AUTH_MODE set as it is there?") from None
    else:
        print("starting a local Ray", flush=True)
        ray.init("local", num_cpus=cpus, include_dashboard=training, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    return True


def _answers(address: str) -> None:
    """OSError at once if nothing listens at host:port; Ray itself tries for minutes. Other addresses are left to it."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
