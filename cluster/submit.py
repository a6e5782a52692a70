"""Submits a command to a Ray cluster as a job that takes this checkout along, and follows it to its end.

    python cluster/submit.py --address http://127.0.0.1:8301 --env GLOT_HOME=/shared/glot -- \\
        python pipelines/extract_features.py --dataset 3dpw

It does what `ray job submit --working-dir .` does. Before that, it says what the job takes along, and refuses what
Ray would refuse after the upload. It waits for jobs over a broken connection, and returns the exit code of the command.

Exit codes: the command's. Before the job runs, 2: a mistake that the message names; 75: the cluster does not answer.
"""

import argparse
import asyncio
import logging
import os
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WARN_BYTES = 10_000_000
ADDRESS = "http://127.0.0.1:8265"  # where Ray's dashboard listens by default
PAUSE, PATIENCE = 3.0, 120.0  # s between two attempts to reach the cluster, and without an answer until the end
MISTAKE, NOT_NOW, INTERRUPTED = 2, 75, 130  # exit codes, as the commands have them


def files_to_send(folder: Path) -> dict[str, int]:
    """{path below the folder: bytes} of what Ray packs, by its own rules: .gitignore, .rayignore, its defaults."""
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    found: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
        elif path.is_dir() and not any(path.iterdir()):
            found[f"{path.relative_to(folder).as_posix()}/"] = 0

    excludes = [_get_excludes(folder, ray_constants.get_runtime_env_default_excludes())]
    gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    quiet = logging.getLogger(f"{__name__}.quiet")
    quiet.disabled = True
    _dir_travel(folder, excludes, add, include_gitignore=gitignore, logger=quiet)
    return found


def package_bytes(files: dict[str, int]) -> int:
    """Size of the zip file that Ray uploads. It is not compressed: 76 bytes and twice the name for each file."""
    return 22 + sum(76 + 2 * len(name.encode()) + size for name, size in files.items())


def largest(files: dict[str, int], count: int = 4) -> str:
    """The largest files and folders, down to two levels."""
    sizes: Counter[str] = Counter()
    for name, size in files.items():
        parts = name.split("/")
        sizes["/".join(parts[:2]) + ("/" if len(parts) > 2 else "")] += size
    return ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.most_common(count))


def check_size(files: dict[str, int], folder: Path) -> None:
    """Says what the job takes along; ends the program if that is more than Ray takes."""
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    size = package_bytes(files)
    what = f"{len(files)} files, {size / 1e6:.1f} MB of {folder} (the largest: {largest(files)})"
    remedy = f"name in {folder / '.rayignore'} what the job does not need"
    if size > DASHBOARD_CLIENT_MAX_SIZE:
        fail(f"{what}: Ray takes {DASHBOARD_CLIENT_MAX_SIZE / 1e6:.1f} MB at most; {remedy}", MISTAKE)
    print(f"the job takes along {what}", flush=True)
    if size > WARN_BYTES:
        print(f"warning: more than {WARN_BYTES / 1e6:.0f} MB go to every node; {remedy}", file=sys.stderr)


def use_token() -> None:
    """Turns token authentication on if there is a token. Ray's own command needs RAY_AUTH_MODE for that."""
    tokens = (os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH"))
    if any(tokens) or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def submit(address: str, folder: Path, variables: dict[str, str], command: list[str]) -> tuple[Any, str]:
    """(the cluster's client, the job's id)."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    environment = {"working_dir": str(folder), "env_vars": variables}
    try:
        client = JobSubmissionClient(address)
        return client, client.submit_job(entrypoint=shlex.join(command), runtime_env=environment)
    except AuthenticationError:
        fail(
            f"{address}: wants a token; set RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token "
            "or RAY_AUTH_TOKEN",
            MISTAKE,
        )
    except (OSError, RuntimeError) as error:  # requests' exceptions are OSErrors; Ray's answers are RuntimeErrors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fail(f"{address}: the job cannot be submitted now ({reason}); is this the address of Ray's dashboard?", NOT_NOW)
    raise AssertionError


async def follow(client: Any, job: str) -> int:
    """Prints the job's log until the job ends; returns the exit code of its command."""
    from aiohttp import ClientError

    printed, silent_since, newline = 0, None, True
    while True:
        try:
            seen = 0  # each connection sends the log from its beginning
            async for text in client.tail_job_logs(job):
                new = text[max(0, printed - seen) :]
                seen += len(text)
                printed = max(printed, seen)
                print(new, end="", flush=True)
                newline = new.endswith("\n") if new else newline
            info = client.get_job_info(job)
            silent_since = None
            if info.status.is_terminal():
                print("" if newline else "\n", end="", flush=True)
                return exit_code(info)
        except (OSError, RuntimeError, ClientError) as error:  # requests' exceptions are OSErrors
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > PATIENCE:
                fail(f"no answer for {PATIENCE:.0f} s ({error}); the job may go on: ray job status {job}", NOT_NOW)
        await asyncio.sleep(PAUSE)


def exit_code(info: Any) -> int:
    """The exit code of a job's command; 1 for a job that was stopped, or that ended before its command ran."""
    print(f"{info.submission_id}: {info.status.value.lower()}", file=sys.stderr)
    if info.status.value == "SUCCEEDED":
        return 0
    if not info.driver_exit_code:
        print(info.message or "", file=sys.stderr)
        return 1
    return info.driver_exit_code if info.driver_exit_code > 0 else 128 - info.driver_exit_code  # a signal


def fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_API_SERVER_ADDRESS") or ADDRESS,
        help=f"of the cluster's dashboard; default: $RAY_API_SERVER_ADDRESS, else {ADDRESS}",
    )
    parser.add_argument(
        "--working-dir", type=Path, default=ROOT, help="folder that the job takes along (this checkout)"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="environment variable of the job, repeatable"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the job's end")
    parser.add_argument("command", nargs="+", help="what the cluster runs, after --")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    chosen = options(sys.argv[1:] if arguments is None else arguments)
    folder = chosen.working_dir.absolute()
    if not folder.is_dir():
        fail(f"--working-dir {folder}: there is no such folder", MISTAKE)
    if unclear := [text for text in chosen.env if "=" not in text]:
        fail(f"--env {unclear[0]}: write NAME=VALUE", MISTAKE)
    use_token()
    check_size(files_to_send(folder), folder)
    variables = dict(text.split("=", 1) for text in chosen.env)
    client, job = submit(chosen.address, folder, variables, chosen.command)
    at = f"--address {chosen.address} {job}"
    print(f"{job}: submitted (ray job logs --follow {at}; ray job stop {at})", flush=True)
    if chosen.no_wait:
        return 0
    try:
        return asyncio.run(follow(client, job))
    except KeyboardInterrupt:
        print(f"{job}: goes on; ray job stop {at} ends it", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # Ray reports each request, and that .git stays behind
    sys.exit(main())
