"""A sweep that meets everything at once: it ends with the runs of a sweep that nothing disturbed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from glot.human.body import load_body
from tests.fixtures.features import write_training_sets
from tests.fixtures.full_disk import filled, full_disk
from tests.fixtures.mlflow_server import MlflowServer
from tests.fixtures.places import ROOT
from tests.glot.training.test_driver import SMALL
from tests.tuning.test_search import results, runs, search

LONGER = [*SMALL, "epochs=10"]
VALUES = "0,0.25,0.5,0.75"
SECONDS = 200.0  # that a step of the test may take on a busy machine
PROGRAM = """
from pathlib import Path
from tests.fixtures.lost_node import losing_a_node
from tuning import trial_queue
trial_queue.WAITS = (2.0, 4.0, 8.0, 16.0)
with losing_a_node(Path({lose!r}).exists):
    from tests.tuning.test_search import search
    from tests.tuning.test_sweep_faults import LONGER
    print("ENDED", search(Path({features!r}), Path({out!r}), {uri!r}, *LONGER, values={values!r}), flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    (tmp_path / "server").mkdir()
    made = MlflowServer(tmp_path / "server")
    made.start()
    yield made
    made.kill()


@dataclass(frozen=True)
class Disturbed:
    """A sweep on two nodes, in a process of its own: what it says and how far it is."""

    out: Path
    printed: Path
    lose: Path  # when this file appears, one of the nodes is killed

    @contextmanager
    def running(self, features: Path, uri: str) -> Iterator["subprocess.Popen[bytes]"]:
        """The sweep's process, which is killed with all that it started if the block fails."""
        code = PROGRAM.format(features=str(features), out=str(self.out), uri=uri, values=VALUES, lose=str(self.lose))
        with self.printed.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", code], env=environment(), stdout=file, stderr=file, start_new_session=True
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def said(self, text: str) -> bool:
        return bool(re.search(text, self.printed.read_text()))

    def training(self) -> list[Path]:
        """Folders of checkpoints of trials that are not over."""
        return [folder for folder in self.out.glob("trials/*/steps") if any(folder.iterdir())]

    def over(self) -> list[Path]:
        return list(self.out.glob("trials/*/outcome.json"))

    def wait_for(self, met: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not met():
            assert time.monotonic() < deadline, f"{what}:\n{self.printed.read_text()[-4000:]}"
            time.sleep(0.02)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def disturb(sweep: Disturbed, features: Path, server: MlflowServer) -> None:
    """A node is lost, the disk fills, and MLflow goes away twice; the sweep ends, and says what is missing."""
    with sweep.running(features, server.uri) as process:
        sweep.wait_for(lambda: len(sweep.training()) == 2, "two trials run, one on each node")
        sweep.lose.touch()
        sweep.wait_for(lambda: sweep.said("its process was lost; tried again"), "a trial lost its node")
        sweep.wait_for(sweep.training, "a trial runs on the other node")
        with filled(sweep.out.parent):
            sweep.wait_for(lambda: sweep.said("(not now|stopped) .*No space left on device"), "the disk was full")
            server.kill()
        sweep.wait_for(lambda: sweep.said("not now .*MLflow .*does not answer"), "a trial was not published")
        server.start()
        sweep.wait_for(sweep.over, "a trial is over")
        server.kill()
        sweep.wait_for(lambda: sweep.said("ENDED"), "the sweep ended")
        process.wait(SECONDS)
    assert sweep.said("ENDED 75") and sweep.said("the same command with --resume sends the results")
    assert not sweep.said("Traceback"), sweep.printed.read_text()


def resume(out: Path, features: Path, uri: str) -> None:
    where = ["--features", str(features), "--out", str(out), "--mlflow", uri, "--values", VALUES, "--resume"]
    settings = [part for setting in LONGER for part in ("--set", setting)]
    line = [sys.executable, "-m", "tuning.search", *where, *settings]
    ended = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
    assert "INFO" not in ended.stdout + ended.stderr and "View run" not in ended.stdout


def logged(client: MlflowClient, trials: list[Run]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """The points of the curves of each trial, by its mask ratio."""
    return {
        run.data.params["model.mask_ratio"]: {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in ("val_pa_mpjpe", "train_loss", "step_loss")
        }
        for run in trials
    }


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_outages_a_full_disk_and_a_lost_node_change_nothing(tmp_path: Path, server: MlflowServer) -> None:
    features, whole = tmp_path / "features", tmp_path / "whole"
    write_training_sets(features, load_body())
    assert search(features, whole, server.uri, *LONGER, values=VALUES, experiment="whole") == 0
    with full_disk(tmp_path, megabytes=100) as (disk, _):
        sweep = Disturbed(disk / "sweep", tmp_path / "printed", tmp_path / "lose")
        disturb(sweep, features, server)
        server.start()
        resume(sweep.out, features, server.uri)
        assert (sweep.out / "report.csv").read_text() == (whole / "report.csv").read_text()

    (undisturbed, wanted), (parent, trials) = runs(server.uri, "whole"), runs(server.uri)
    assert results(trials) == results(wanted)  # bitwise
    assert {run.info.status for run in (parent, undisturbed, *trials, *wanted)} == {"FINISHED"}
    client = MlflowClient(server.uri)
    assert logged(client, trials) == logged(client, wanted)
    for run in (*trials, *wanted):
        assert {"epochs.csv", "epochs.png"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    assert parent.data.tags["best"] == undisturbed.data.tags["best"]
    assert len(client.search_model_versions("name = 'glot-mask_ratio'")) == 2
