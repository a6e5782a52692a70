"""The files of cluster/: what Ray's launcher checks, what Kubernetes would refuse, and Slurm's script really run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests.fixtures.places import ROOT

CLUSTER = ROOT / "cluster"


def test_the_launcher_takes_ray_yaml() -> None:
    config = yaml.safe_load((CLUSTER / "ray.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):  # so the schema can say no
        jsonschema.validate(config | {"max_wrokers": 3}, schema)
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    head, worker = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    assert "--head --port 6401" in head and "$RAY_HEAD_IP:6401" in worker
    assert all("RAY_AUTH_MODE=token" in line for line in (head, worker))


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    spec = document["spec"].get("rayClusterSpec", document["spec"])
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_kubernetes_files_hold_together() -> None:
    documents = list(yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text()))
    assert [document["kind"] for document in documents] == ["RayJob", "RayCluster"]
    for document in documents:
        assert document["apiVersion"] == "ray.io/v1" and re.fullmatch("[a-z-]+", document["metadata"]["name"])
        cluster = document["spec"].get("rayClusterSpec", document["spec"])
        assert cluster["rayVersion"] == ray.__version__
        for group in pods(document):
            assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "flags are strings"
            pod = group["template"]["spec"]
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
                assert container["resources"]["requests"] == container["resources"]["limits"]
                assert all(isinstance(value, str) for value in container["resources"]["limits"].values())
            if "groupName" in group:
                assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert "--out /shared/" in documents[0]["spec"]["entrypoint"]


def test_what_the_image_copies_is_there() -> None:
    lines = [line.split() for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert lines and all((ROOT / name).exists() for line in lines for name in line[1:-1])
    packages = {name for line in lines for name in line[1:-1] if (ROOT / name).is_dir()}
    assert packages == {"glot", "pipelines", "tuning"}


def slurm(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as Slurm would run it on the only node of an allocation, which is this machine."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    stubs = {
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "scontrol": 'if [ "$1" = requeue ]; then echo "requeue $2"; else echo 127.0.0.1; fi',
    }
    for name, line in stubs.items():
        (tools / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (tools / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NODELIST": "node", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "1", **environment,
    }  # fmt: skip
    script = ["bash", str(CLUSTER / "slurm.sbatch"), *command]
    return subprocess.run(script, env=environment, capture_output=True, text=True, timeout=240)


def test_slurm_script_says_what_is_missing(tmp_path: Path) -> None:
    for command, reason in (((), "say what to run"), (("true",), "no .venv in")):
        ended = slurm(tmp_path, *command)
        assert ended.returncode == 2 and reason in ended.stderr


@pytest.mark.slow
def test_slurm_script_runs_a_command_on_a_ray_of_its_own(tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    code = "import ray; ray.init(); print('nodes', len(ray.nodes()), ray.cluster_resources()['CPU'])"
    ended = slurm(tmp_path, "python", "-c", code)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "nodes 1 1.0" in ended.stdout
    failed = slurm(tmp_path, "python", "-c", "raise SystemExit(3)", SLURM_JOB_ID="4712")
    assert failed.returncode == 3 and "requeue" not in failed.stdout
    unfinished = slurm(tmp_path, "python", "-c", "raise SystemExit(75)", SLURM_JOB_ID="4713")
    assert unfinished.returncode == 75 and "requeue" in unfinished.stdout
