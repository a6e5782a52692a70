"""Whether a Ray cluster can hold a run: joining it, its GPUs and cores, and which files its nodes see."""

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from glot.training.cluster import session  # sets the environment variables that ray reads when it is imported

# isort: split
import ray
import torch

from glot.cores import available_cores
from glot.errors import InputError, NotNowError
from glot.location import is_remote, temporary_of
from glot.training.cluster import nodes
from glot.training.cluster.placement import Resources, cores_each, described, in_words, slots
from glot.training.spec import TrainSpec

NODE_SECONDS = 60.0  # how long to wait for a lost node to come back
LOOK_SECONDS = 60.0  # how long nodes may take to report which files they see
FREE_SECONDS = 3.0  # Ray's view of what is free is so late
PROBE_SECONDS = 30.0  # how long a GPU may take to answer; one that is occupied does not
GPU_SHARE = 0.001  # so little that it is free unless other work has the whole GPU


def connect(*, workers: int, gpus: int) -> None:
    """Joins a Ray cluster, or starts Ray with enough cores for the workers; InputError where GPUs are lacking."""
    present = torch.cuda.device_count()
    if not os.environ.get("RAY_ADDRESS") and gpus > present:  # checked first, because Ray takes seconds to start
        raise InputError(
            f"--gpus {gpus}: this machine has {present}; ask for fewer, use --workers N on CPUs, or set RAY_ADDRESS to "
            "a cluster"
        )
    session.connect(cpus=max(workers, available_cores()), training=True)


def choose_device(spec: TrainSpec) -> TrainSpec:
    """The spec with a number of GPUs: one, if there is any and the user asked for neither GPUs nor workers.

    A batch is small for several GPUs, so they are taken only where the user says so. Prints what is chosen.
    """
    if spec.gpus is not None:
        return spec
    gpus = 0 if spec.workers else usable_gpus()
    if gpus:
        print(f"training on 1 of {gpus} GPUs (--gpus N takes N of them, --gpus 0 the CPU)", flush=True)
    return replace(spec, gpus=1 if gpus else 0)


def usable_gpus() -> int:
    """How many GPUs the cluster has; 0, with a line that says so, if torch does not see them on their nodes."""
    gpus = slots(nodes.resources(), {"GPU": 1})
    if gpus and not _torch_sees_gpu():
        print(f"training on the CPU: Ray finds {gpus} GPUs, but torch does not; install torch's CUDA build", flush=True)
        return 0
    return gpus


def _torch_sees_gpu() -> bool:
    """Whether torch sees a GPU in a worker that has one. True where all are occupied, so that no worker can say."""
    probe = ray.remote(num_cpus=0, num_gpus=GPU_SHARE)(torch.cuda.is_available).remote()
    if not ray.wait([probe], timeout=PROBE_SECONDS)[0]:
        ray.cancel(probe)
        return True
    return bool(ray.get(probe))


def claim_of(*, gpus: bool, cores: float) -> Resources:
    """What each of Ray Train's workers claims."""
    return {"GPU": 1} if gpus else {"CPU": cores}


def check_room(workers: int, claim: Resources) -> None:
    """InputError when the nodes can never hold the workers. Ray would wait for them forever without a message.

    A cluster that can grow is asked to; NotNowError if it has not for a long time.
    """
    found = nodes.grown_resources(workers, claim)
    fit = slots(found, claim)
    if fit >= workers:
        return
    option = f"--gpus {workers}" if "GPU" in claim else f"--workers {workers}"
    room = f"{option}: the cluster has room for {fit} workers with {in_words(claim)} each ({described(found)})"
    if nodes.can_grow():
        raise NotNowError(f"{room}, and it has not grown; try again later, or ask for fewer")
    raise InputError(f"{room}; ask for fewer" + (", or use --workers N on CPUs" if "GPU" in claim else ""))


def free_cores_each(workers: int) -> int:
    """The most cores that each of the workers can have now. Other work's cores are waited for if there are too few.

    At least 1; ``check_room`` has found that they fit when nothing else runs.
    """
    most, patience = max(1, cores_each(nodes.resources(), workers)), time.monotonic() + FREE_SECONDS
    while (free := cores_each(nodes.free_resources(), workers)) < most and time.monotonic() < patience:
        time.sleep(0.2)
    return free or most


def say_what_waits(workers: int, claim: Resources) -> None:
    """Prints a line if workers have to wait for what other work occupies."""
    patience = time.monotonic() + FREE_SECONDS
    while slots(nodes.free_resources(), claim) < workers:
        if time.monotonic() > patience:
            print(f"waiting for room for {workers} x {in_words(claim)}, which other work occupies", flush=True)
            return
        time.sleep(0.2)


def check_nodes(features: Path, out: Path) -> None:
    """InputError unless every node of the cluster sees the features and what this process writes to ``out``.

    All nodes are asked at the same time. NotNowError where one does not answer.
    """
    alive = nodes.alive_nodes()
    if len(alive) < 2:
        return
    token = temporary_of(out / "seen-by-all")
    token.write_text("")
    places = [str(token)] + ([] if is_remote(features) else [str(features)])

    @ray.remote(num_cpus=0, max_retries=0)
    def unseen_places() -> list[str]:
        return [place for place in places if not os.path.exists(place)]

    try:
        asked = {unseen_places.options(scheduling_strategy=nodes.on(node)).remote(): node for node in alive}
        answers, silent = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
        for answer in answers:
            where = f"the node {asked[answer]['NodeManagerAddress']}"
            try:
                unseen = ray.get(answer)
            except ray.exceptions.RayError as error:
                raise NotNowError(f"{where} cannot run anything ({str(error).splitlines()[0]})") from None
            if unseen:
                what = f"--out {out}" if str(token) in unseen else f"--features {features}"
                raise InputError(f"{what}: {where} does not see it; put it on a file system that all nodes share")
        if silent:
            names = ", ".join(asked[answer]["NodeManagerAddress"] for answer in silent)
            raise NotNowError(
                f"after {LOOK_SECONDS:.0f} s there is no answer from {names}; are these nodes overloaded?"
            )
    finally:
        token.unlink(missing_ok=True)


def available_slots(wanted: int, claim: Resources) -> int:
    """How many of the ``wanted`` workers the cluster holds now, after some of them were lost.

    Waits NODE_SECONDS for a lost node to come back. A cluster that can grow is asked for the room of all workers in
    this time; if none is left, it has GROW_SECONDS.
    """
    grows, begun = nodes.can_grow(), time.monotonic()
    with ExitStack() as stack:
        if grows:
            stack.enter_context(nodes.asked_for(wanted, claim))
        while True:
            found = slots(nodes.answering_resources(), claim)
            patience = nodes.GROW_SECONDS if grows and not found else NODE_SECONDS
            if found >= wanted or time.monotonic() - begun > patience:
                return min(found, wanted)
            time.sleep(1)
