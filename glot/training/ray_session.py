"""Joins the Ray cluster of RAY_ADDRESS, or starts Ray on this machine, in the same way for every command.

Importing this module sets the environment variables that ray reads when ray is imported. Only ``connect`` imports ray.
"""

import logging
import os
import socket
from typing import Any

from glot.errors import InputError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# report() waits for the controller to ask (every 2 s by default). Printed lines get no prefix.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # no tables of Tune, which verbose=0 does not turn off
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # no log files of Tune: MLflow has the curves
# No notices of Ray's own libraries in driver logs; errors that concern a command come as exceptions.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
OBJECT_STORE_BYTES = 200_000_000  # enough: commands send only names and counts through it


def connect(*, cpus: int | None = None, training: bool = False) -> bool:
    """Connects this process to Ray. Returns False if it was connected already, else True.

    If RAY_ADDRESS is set, as in a submitted job, the cluster there is joined; RAY_AUTH_MODE must have the same value as
    on the cluster. Otherwise a new Ray is started on this machine, even if another Ray runs here. Raises InputError
    where the cluster does not answer.

    ``cpus``: the cores that a new Ray offers (None: all). ``training``: this process prints the workers' output, and a
    new Ray runs the dashboard's state service, because Ray Train prints warnings without the service.
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
            raise InputError(f"RAY_ADDRESS {address}: {why}; is it running, with this RAY_AUTH_MODE?") from None
    else:
        print("starting a local Ray", flush=True)
        ray.init("local", num_cpus=cpus, include_dashboard=training, object_store_memory=OBJECT_STORE_BYTES, **quiet)
    return True


def _answers(address: str) -> None:
    """OSError at once if nothing listens at host:port, where Ray would try for minutes. Only host:port is tested."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
