"""The files of cluster/: what Ray's launcher checks, what Kubernetes would refuse, and Slurm's script really run."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from tests.fixtures import kuberay
from tests.fixtures.places import ROOT

CLUSTER = ROOT / "cluster"


def launched(name: str) -> dict[str, Any]:
    """A file for Ray's launcher, after the launcher's own checks, with what the launcher fills in."""
    config = yaml.safe_load((CLUSTER / name).read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):  # so the schema can say no
        jsonschema.validate(config | {"max_wrokers": 3}, schema)
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(config)
    validate_config(config)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert any("ray start" in command for command in commands)
        for command in commands:
            assert "ray start" not in command or "RAY_AUTH_MODE=token RAY_worker_niceness=0" in command
            assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0
    head, worker = " ".join(config["head_start_ray_commands"]), " ".join(config["worker_start_ray_commands"])
    assert "--head --port 6401" in head and "$RAY_HEAD_IP:6401" in worker
    return config


def test_the_launcher_takes_ray_yaml() -> None:
    config = launched("ray.yaml")
    assert config["max_workers"] == len(config["provider"]["worker_ips"])


def test_the_launcher_starts_a_cloud_from_zero_machines_and_a_head_that_does_no_work() -> None:
    config = launched("ray-cloud.yaml")
    types = config["available_node_types"]
    assert config["head_node_type"] == "head" and types["head"]["resources"] == {"CPU": 0}
    workers = {name: node for name, node in types.items() if name != "head"}
    assert [node["min_workers"] for node in workers.values()] == [0, 0]
    assert config["max_workers"] == sum(node["max_workers"] for node in workers.values())
    assert all(node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"} for node in workers.values())
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert any("spot_notice.sh" in command for command in config["worker_start_ray_commands"])


KUBERAY = [
    pytest.param(document, id=document["kind"])
    for document in yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text())
]


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"].get("rayClusterSpec", document["spec"])


@pytest.mark.parametrize("document", KUBERAY)
def test_kuberay_knows_all_fields(document: dict[str, Any]) -> None:
    schema = kuberay.RESOURCE_OF[document["kind"]]
    jsonschema.validate(document, schema)
    for path in ("enableInTreeAutoscaling", "autoscalerOptions.idleTimeoutSeconds", "headGroupSpec.rayStartParams"):
        wrong = copy.deepcopy(document)  # so the schema can say no
        *parents, last = path.split(".")
        spec = cluster_of(wrong)
        for parent in parents:
            spec = spec[parent]
        spec[last.lower()] = spec.pop(last)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("document", KUBERAY)
def test_kubernetes_files_hold_together(document: dict[str, Any]) -> None:
    cluster = cluster_of(document)
    assert cluster["rayVersion"] == ray.__version__
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]
        if "groupName" in group:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            # Ray's own default is 30 s: it would end before the drain or be killed in the middle of it.
            environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
            drain = float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 2 <= pod["terminationGracePeriodSeconds"] - drain <= 10


@pytest.mark.parametrize("document", KUBERAY)
def test_rays_autoscaler_reads_the_groups(document: dict[str, Any]) -> None:
    """The autoscaler that runs in the head's pod makes its settings from the resource with this function."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as derive

    cluster = cluster_of(document)
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    config = derive({"metadata": {"namespace": "default", "name": "glot"}, "spec": cluster})
    types = config["available_node_types"]
    assert types.pop(config["head_node_type"])["resources"]["CPU"] == 0
    assert config["idle_timeout_minutes"] >= 5
    if document["kind"] == "RayJob":
        assert {name: node["min_workers"] for name, node in types.items()} == {"cpu": 0, "gpu": 0}
        assert types["cpu"]["resources"]["CPU"] == 8 and "GPU" not in types["cpu"]["resources"]
        assert types["gpu"]["resources"]["GPU"] == 1
        assert "--out /shared/" in document["spec"]["entrypoint"] and document["spec"]["backoffLimit"] > 0


def test_what_the_image_copies_is_there() -> None:
    lines = [line.split() for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert lines and all((ROOT / name).exists() for line in lines for name in line[1:-1])
    packages = {name for line in lines for name in line[1:-1] if (ROOT / name).is_dir()}
    assert packages == {"glot", "pipelines", "tuning"}
    text = (CLUSTER / "Dockerfile").read_text()
    assert "'.[s3]'" in text and "RAY_worker_niceness=0" in text


def tool(folder: Path, name: str, lines: str) -> None:
    """A command ``name`` in folder/bin that runs these lines of bash."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{lines}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("name", ["slurm.sbatch", "spot_notice.sh"])
def test_scripts_are_sound(name: str) -> None:
    assert subprocess.run(["bash", "-n", str(CLUSTER / name)]).returncode == 0
    if checker := shutil.which("shellcheck"):
        assert subprocess.run([checker, str(CLUSTER / name)]).returncode == 0


NOTICES = {  # what each cloud's metadata say at the third question; before it, nothing
    "aws": """case "$*" in *api/token) echo token;; *"token: token"*instance-action) NOTICE || exit 22;;
        *) exit 22; esac""",
    "google": """case "$*" in *Google*preempted) NOTICE && echo TRUE || echo FALSE;; *) exit 22; esac""",
    "azure": """case "$*" in *scheduledevents*) NOTICE && echo '{"EventType":"Preempt"}' || echo '{"Events":[]}';;
        *) exit 22; esac""",
}


@pytest.mark.parametrize("cloud", NOTICES)
def test_a_spot_machine_that_will_go_is_drained(tmp_path: Path, cloud: str) -> None:
    """curl ends with 22 where a server answers 404."""
    tool(tmp_path, "ray", 'echo "ray $*"')
    notice = '{ echo >> asked; [ "$(wc -l < asked)" -ge 3 ]; }'
    tool(tmp_path, "curl", NOTICES[cloud].replace("NOTICE", notice))
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "EVERY": "0.01"}
    command = ["bash", str(CLUSTER / "spot_notice.sh"), "10.0.0.1:6401", "90"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("ray drain-node --address 10.0.0.1:6401 --reason DRAIN_NODE_REASON_PREEMPTION")
    assert "--deadline-remaining-seconds 90" in ended.stdout and (tmp_path / "asked").read_text().count("\n") == 3


def allocation(folder: Path, **environment: str) -> dict[str, str]:
    """The environment of a Slurm job in ``folder`` on one node, with a virtual environment and Slurm's commands."""
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    (folder / ".venv" / "bin" / "activate").write_text(
        f'export PATH="{folder / "bin"}:{Path(sys.executable).parent}:$PATH"\n'
    )
    tool(folder, "srun", 'echo "srun $*"; while [[ "$1" == --* ]]; do shift; done; exec "$@"')
    tool(folder, "scontrol", 'if [ "$1" = requeue ]; then echo "requeue $2"; else echo 127.0.0.1; fi')
    if not (folder / "cluster").exists():
        (folder / "cluster").symlink_to(CLUSTER)
    return {
        **os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "node", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "1",
        **environment,
    }  # fmt: skip


def slurm(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as Slurm would run it on the only node of an allocation, which is this machine."""
    script = ["bash", str(CLUSTER / "slurm.sbatch"), *command]
    return subprocess.run(script, env=allocation(folder, **environment), capture_output=True, text=True, timeout=240)


def without_ray(folder: Path) -> None:
    """``ray symmetric-run OPTIONS -- COMMAND`` that only runs the command."""
    tool(folder, "ray", 'while [ "$1" != -- ]; do shift; done; shift; "$@"')


def test_slurm_script_says_what_is_missing(tmp_path: Path) -> None:
    ended = slurm(tmp_path)
    assert ended.returncode == 2 and "say what to run" in ended.stderr
    environment = allocation(tmp_path)
    shutil.rmtree(tmp_path / ".venv")
    ended = subprocess.run(
        ["bash", str(CLUSTER / "slurm.sbatch"), "true"], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "no .venv in" in ended.stderr


def test_a_slurm_job_ends_as_its_command_does_and_75_queues_it_again(tmp_path: Path) -> None:
    without_ray(tmp_path)
    for code in (0, 1, 3):
        ended = slurm(tmp_path, "bash", "-c", f"exit {code}")
        assert ended.returncode == code and "requeue" not in ended.stdout, ended.stderr
    ended = slurm(tmp_path, "bash", "-c", 'echo "wait $RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT"; exit 75')
    assert ended.returncode == 75 and "requeue 4711" in ended.stdout and "wait 600" in ended.stdout
    ended = slurm(tmp_path, "bash", "-c", "exit 75", SLURM_RESTART_COUNT="7", REQUEUES="7")
    assert ended.returncode == 75 and "requeue" not in ended.stdout and "queued again 7 times" in ended.stderr


def test_a_node_that_was_lost_does_not_fail_the_slurm_job(tmp_path: Path) -> None:
    """srun then ends with an error, although the command went well on the nodes that were left."""
    without_ray(tmp_path)
    environment = allocation(tmp_path)
    tool(tmp_path, "srun", 'while [[ "$1" == --* ]]; do shift; done; "$@"; exit 143')
    script = ["bash", str(CLUSTER / "slurm.sbatch"), "true"]
    assert subprocess.run(script, env=environment, capture_output=True, timeout=60).returncode == 0


def test_a_slurm_job_near_its_limit_is_drained_and_queued_again_and_a_cancelled_one_is_not(tmp_path: Path) -> None:
    without_ray(tmp_path)
    environment = allocation(tmp_path, DRAIN_SECONDS="30")
    tool(
        tmp_path, "python", f'[ "$1" = -c ] && exec {sys.executable} "$@"; echo "drained $* $RAY_ADDRESS"; touch leave'
    )
    until = "echo ready; while [ ! -f leave ]; do sleep 0.05; done; exit 75"
    for sent, expected in ((signal.SIGUSR1, 75), (signal.SIGTERM, -signal.SIGTERM)):
        (tmp_path / "leave").unlink(missing_ok=True)
        script = ["bash", str(CLUSTER / "slurm.sbatch"), "bash", "-c", until]
        with subprocess.Popen(
            script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as job:
            assert job.stdout is not None
            assert any(line == "ready\n" for line in job.stdout)
            job.send_signal(sent)
            job.wait(timeout=60)
            (tmp_path / "leave").touch()  # ends the command that a cancelled job leaves to Slurm
            said = job.stdout.read()
        assert job.returncode == expected, said
        drained = "drained cluster/drain.py 30 127.0.0.1:24711" in said
        assert (drained, "requeue 4711" in said) == ((True, True) if sent == signal.SIGUSR1 else (False, False)), said


@pytest.mark.alone
@pytest.mark.slow
def test_slurm_script_runs_a_command_on_a_ray_of_its_own(tmp_path: Path) -> None:
    code = "import ray; ray.init(); print('nodes', len(ray.nodes()), ray.cluster_resources()['CPU'])"
    ended = slurm(tmp_path, "python", "-c", code)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "nodes 1 1.0" in ended.stdout
    failed = slurm(tmp_path, "python", "-c", "raise SystemExit(3)", SLURM_JOB_ID="4712")
    assert failed.returncode == 3 and "requeue" not in failed.stdout


WORKER = """
import os, sys, time, ray
ray.init(log_to_driver=False)

@ray.remote
def work():
    from ray._private.state import state
    print("begun")
    while not (going := state.get_draining_nodes()):
        time.sleep(0.2)
    return os.nice(0), min(going.values()) / 1000 - time.time()

reference = work.remote()
time.sleep(3)
print("ready", flush=True)
nice, left = ray.get(reference)
print("nice", nice, "left", 20 < left <= 30, flush=True)
sys.exit(75)
"""


@pytest.mark.alone
@pytest.mark.slow
def test_workers_notice_that_the_time_of_a_slurm_job_is_nearly_over(tmp_path: Path) -> None:
    environment = allocation(tmp_path, DRAIN_SECONDS="30", SLURM_JOB_ID="4714")
    script = ["bash", str(CLUSTER / "slurm.sbatch"), "python", "-c", WORKER]
    with subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        assert job.stdout is not None
        assert any(line == "ready\n" for line in job.stdout)
        job.send_signal(signal.SIGUSR1)
        said = job.stdout.read()
    assert job.returncode == 75 and f"nice {os.nice(0)} left True" in said and "requeue 4714" in said, said


UNITS = {
    "million": 1e6,
    "billion": 1e9,
    "GB": 1e9,
    "TB": 1e12,
    "seconds": 1 / 3600,
    "minutes": 1 / 60,
    "hours": 1,
    "days": 24,
}


def quantity(cell: str) -> float:
    """The number that a cell begins with, in rows, hours, bytes or requests."""
    number, unit = re.match(r"([\d.,]+) ?(\w*)", cell).groups()  # type: ignore[union-attr]
    return float(number.replace(",", "")) * UNITS.get(unit, 1)


def test_the_table_of_costs_follows_from_the_unit_costs() -> None:
    text = (CLUSTER / "README.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    unit = {row[0][1]: quantity(row[1]) for row in rows if re.match(r"\*\w\* ", row[0])}
    table = {row[0]: [quantity(cell) for cell in row[2:]] for row in rows if len(row) == 5 and row[0]}
    frames = 1800.0
    work = {name: frames / unit[letter] / 3600 for name, letter in (("float32", "r"), ("int8", "i"), ("GPUs", "d"))}
    of_a_video = {
        "rows *N*": frames,
        "core-hours, float32": work["float32"],
        "core-hours, int8": work["int8"],
        "core-hours beside GPUs": work["GPUs"],
        "GPU-hours, 16 cores to a GPU": work["GPUs"] / 16,
        "time on 64 cores, float32": work["float32"] / 64,
        "time on 512 cores, int8": work["int8"] / 512,
        "disk": frames * unit["b"],
        "disk, float16": frames * unit["b"] / 2,
        "requests to a store": unit["q"],
        "requests of a run with nothing to do": unit["n"],
    }
    assert set(of_a_video) == set(table)
    for name, cells in table.items():
        assert cells == pytest.approx([of_a_video[name] * videos for videos in (1e3, 1e5, 1e6)], rel=0.08), name
