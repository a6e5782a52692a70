"""Joins the Ray cluster of RAY_ADDRESS, or starts Ray on this machine, in the same way for every command.

Importing this module sets the environment variables that ray reads when ray is imported. Only ``connect`` imports ray.
"""

import json
import logging
import os
import random
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glot.cores import available_cores
from glot.errors import InputError
from glot.library_log import without_lines

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# report() waits for the controller to ask (every 2 s by default). Ray Train leaves print as it is.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # no tables of Tune, which verbose=0 does not turn off
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # no log files of Tune: MLflow has the curves
NOTICE = "has constructor arguments in the object store and max_restarts > 0"
# Lines of workers that the driver does not print: Ray Train's own actors give rise to this one. Errors are printed.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", NOTICE)
os.environ.setdefault("RAY_DISABLE_WORKER_LOG_PREFIX", "1")  # a worker's lines look like the command's
# What a Ray on this machine is started with. By default its workers run at nice 15, so that everything else on the
# machine goes first, Ray's own helpers included. Nobody collects its metrics.
LOCAL = {"RAY_worker_niceness": "0", "RAY_enable_metrics_collection": "0"}
# The longest paths that Ray and Python make a socket at, below their folders, and the longest that the system takes.
SOCKET = "/ray/session_2026-11-27_19-19-07_123456_4194304/sockets/plasma_store.1"
PYTHON_SOCKET = "/pymp-12345678/listener-12345678"
LONGEST_SOCKET = (104 if sys.platform == "darwin" else 108) - 1
SHORT_FOLDERS = ("/tmp", "/dev/shm")
OBJECT_STORE_BYTES = 200_000_000  # enough: commands send only names and counts through it


def connect(*, cpus: int | None = None, training: bool = False) -> bool:
    """Connects this process to Ray. Returns False if it was connected already, else True.

    If RAY_ADDRESS is set, as in a submitted job, the cluster there is joined; RAY_AUTH_MODE must have the same value as
    on the cluster. Otherwise a new Ray is started on this machine, even if another Ray runs here. Raises InputError
    where the cluster does not answer.

    ``cpus``: the cores that a new Ray offers (None: all that this process may use). ``training``: this process prints
    the workers' output, and a new Ray can run Ray Train.
    """
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": training, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            _answers(address)
            if training:
                options |= _address_for_workers(address)
            ray.init(**options)
        except OSError as error:
            why = str(error).splitlines()[0]
            raise InputError(f"RAY_ADDRESS {address}: {why}; is it running, with this RAY_AUTH_MODE?") from None
    else:
        choose_token()
        print("starting a local Ray", flush=True)
        for name, value in LOCAL.items():
            os.environ.setdefault(name, value)
        options |= dashboard() if training else {"include_dashboard": False}
        with short_folders():
            ray.init("local", num_cpus=cpus or available_cores(), object_store_memory=OBJECT_STORE_BYTES, **options)
    if not training:
        _print_notice_to_nobody()
    return True


@contextmanager
def short_folders() -> Iterator[None]:
    """Within it, TMPDIR is short if it would be too long for sockets: Python's, in processes that are started now.

    RAY_TMPDIR, which Ray's own sockets are in, is chosen for good.
    """
    choose_folder()
    given = os.environ.get("TMPDIR", "")
    if len(os.fsencode(given)) <= LONGEST_SOCKET - len(PYTHON_SOCKET):
        yield
        return
    os.environ["TMPDIR"] = os.environ.get("RAY_TMPDIR", SHORT_FOLDERS[0])
    try:
        yield
    finally:
        os.environ["TMPDIR"] = given


def choose_folder() -> None:
    """Sets RAY_TMPDIR to a short folder, where TMPDIR is too long for the sockets that Ray makes below it.

    Batch systems give long ones. InputError, naming RAY_TMPDIR, where the user has to choose.
    """
    room = LONGEST_SOCKET - len(SOCKET)
    given = os.environ.get("RAY_TMPDIR", "/tmp" if sys.platform == "darwin" else os.environ.get("TMPDIR", "/tmp"))
    if len(os.fsencode(given)) <= room:
        return
    advice = f"is too long for the sockets of Ray; set RAY_TMPDIR to a folder of at most {room} bytes on this machine"
    if "RAY_TMPDIR" in os.environ:
        raise InputError(f"RAY_TMPDIR {given}: {advice}")
    for folder in SHORT_FOLDERS:
        place = os.path.join(folder, "ray")  # other users' Rays may be in it
        if os.access(place if os.path.exists(place) else folder, os.W_OK | os.X_OK):
            os.environ["RAY_TMPDIR"] = folder
            return
    raise InputError(f"TMPDIR {given}: {advice}")


def choose_token() -> None:
    """Sets the token of a new Ray, if the user has none.

    Ray itself would write one into the home folder. Two that start at the same moment would overwrite each other's,
    and the home folder of a container may not be written.
    """
    wanted = os.environ.get("RAY_AUTH_MODE", "token").lower() == "token"
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if wanted and not given and not (Path.home() / ".ray" / "auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _address_for_workers(address: str) -> dict[str, Any]:
    """Arguments of ray.init that tell the processes of a cluster its address: see ``dashboard``.

    Nothing for a job that was submitted with such an address, and for Ray's client, whose processes are elsewhere.
    """
    from ray._private.services import canonicalize_bootstrap_address

    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    told = (job.get("runtime_env") or {}).get("env_vars") or {}
    if "://" in address or {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"} & set(told):
        return {}
    # 127.0.0.1 becomes an address that other nodes know.
    return {"runtime_env": {"env_vars": {"RAY_ADDRESS": canonicalize_bootstrap_address(address)}}}


def dashboard() -> dict[str, Any]:
    """Arguments of ray.init for a dashboard that this Ray's processes find, even if another Ray of this user runs here.

    Ray Train asks the dashboard's state service whether a run is alive. Without this address it would ask the Ray whose
    address was last written to the temporary folder. That one does not know the run, and Ray Train would take the
    workers' resources away.
    """
    port = _free_port()
    address = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}
    return {"include_dashboard": True, "dashboard_port": port, "runtime_env": {"env_vars": address}}


def _free_port() -> int:
    """A port on which nothing listens, below those that Linux gives to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _print_notice_to_nobody() -> None:
    """Ray's core prints NOTICE for the first such actor of a process. Here it is an actor that is not needed.

    All pools of Ray Data are such actors. RAY_BACKEND_LOG_LEVEL, the only switch, would hide errors, too, and would
    print a line about itself.
    """
    import ray

    class NotNeeded:
        def __init__(self, argument: Any) -> None:
            pass

    remote: Any = ray.remote(num_cpus=0, max_restarts=1)(NotNeeded)
    argument = ray.put(None)
    with without_lines(NOTICE):
        actor = remote.remote(argument)
    ray.kill(actor)


def _answers(address: str) -> None:
    """OSError at once if nothing listens at host:port, where Ray would try for minutes. Only host:port is tested."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
