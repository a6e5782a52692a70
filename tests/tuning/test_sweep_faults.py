"""A sweep that meets everything at once: it ends with the runs of a sweep that nothing disturbed."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

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
DISTURBED = """
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


def wait_for(met: Callable[[], object], printed: Path, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < deadline, f"{what}:\n{printed.read_text()[-4000:]}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_outages_a_full_disk_and_a_lost_node_change_nothing(tmp_path: Path, server: MlflowServer) -> None:
    features, printed, lose = tmp_path / "features", tmp_path / "printed", tmp_path / "lose"
    write_training_sets(features, load_body())
    assert search(features, tmp_path / "whole", server.uri, *LONGER, values=VALUES, experiment="whole") == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    with full_disk(tmp_path, megabytes=100) as (disk, _):
        out = disk / "sweep"
        code = DISTURBED.format(features=str(features), out=str(out), uri=server.uri, values=VALUES, lose=str(lose))

        def said(text: str) -> int:
            return len(re.findall(text, printed.read_text()))

        def training() -> list[str]:
            """Trials that have a checkpoint to continue from and are not over."""
            return [path.parent.name for path in out.glob("trials/*/steps") if any(path.iterdir())]

        def over() -> int:
            return len(list(out.glob("trials/*/outcome.json")))

        with (
            printed.open("w") as file,
            subprocess.Popen(
                [sys.executable, "-c", code], env=environment, stdout=file, stderr=subprocess.STDOUT
            ) as driver,
        ):
            wait_for(lambda: len(training()) == 2, printed, "two trials run, one on each node")
            lose.touch()
            wait_for(lambda: said("its process was lost; tried again"), printed, "a trial lost its node")
            wait_for(training, printed, "a trial runs on the other node")
            with filled(disk):
                wait_for(lambda: said("(not now|stopped) .*No space left on device"), printed, "the disk was full")
                server.kill()
            wait_for(lambda: said("not now .*MLflow .*does not answer"), printed, "a trial was not published")
            server.start()
            wait_for(over, printed, "a trial is over")
            server.kill()
            assert driver.wait(SECONDS) == 0
        text = printed.read_text()
        assert "ENDED 75" in text and "Traceback" not in text, text[-4000:]
        assert "the same command with --resume sends the results" in text

        server.start()
        where = ["--features", str(features), "--out", str(out), "--mlflow", server.uri, "--values", VALUES]
        settings = [part for setting in LONGER for part in ("--set", setting)]
        again = [sys.executable, "-m", "tuning.search", *where, *settings, "--resume"]
        ended = subprocess.run(again, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-4000:]
        assert "INFO" not in ended.stdout + ended.stderr and "View run" not in ended.stdout
        assert (out / "report.csv").read_text() == (tmp_path / "whole" / "report.csv").read_text()

    (undisturbed, wanted), (parent, trials) = runs(server.uri, "whole"), runs(server.uri)
    assert results(trials) == results(wanted)  # bitwise
    assert {run.info.status for run in (parent, undisturbed, *trials, *wanted)} == {"FINISHED"}
    client = MlflowClient(server.uri)

    def curves(run_id: str) -> dict[str, list[tuple[int, float]]]:
        return {
            name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
            for name in ("val_pa_mpjpe", "train_loss", "step_loss")
        }

    ratio = "model.mask_ratio"
    same = {run.data.params[ratio]: curves(run.info.run_id) for run in wanted}
    assert {run.data.params[ratio]: curves(run.info.run_id) for run in trials} == same
    for run in (*trials, *wanted):
        assert {"epochs.csv", "epochs.png"} <= {file.path for file in client.list_artifacts(run.info.run_id)}
    (best, other) = (run.data.tags["best"] for run in (parent, undisturbed))
    assert best == other and len(client.search_model_versions("name = 'glot-mask_ratio'")) == 2
