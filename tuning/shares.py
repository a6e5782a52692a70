"""How many trials a cluster holds at a time, and each trial's share of its cores and GPUs."""

from dataclasses import replace

from glot.errors import InputError, NotNowError
from glot.training.cluster.nodes import can_grow, grown_resources
from glot.training.cluster.placement import Resources, cores_each, described, in_words, slots
from glot.training.cluster.preflight import usable_gpus
from tuning.spec import SearchSpec
from tuning.trial import CPU_SHARE, TrialPlan


def choose_device(spec: SearchSpec) -> SearchSpec:
    """The spec with a number of GPUs for a trial: one, if there is any and the user asked for neither GPUs nor workers.

    Prints what is chosen.
    """
    if spec.gpus_per_trial is not None:
        return spec
    gpus = 0 if spec.workers_per_trial > 1 else usable_gpus()
    if gpus:
        print(f"each trial trains on 1 of {gpus} GPUs (--gpus-per-trial 0: on CPUs)", flush=True)
    return replace(spec, gpus_per_trial=1.0 if gpus else 0.0)


def share_cluster(plan: TrialPlan, trials: int) -> tuple[int, TrialPlan]:
    """How many of the ``trials`` run at a time, and the plan with a trial's share of the cores.

    A cluster that can grow is asked for nodes for as many trials at a time as the user wants, or else for one. Raises
    InputError if the cluster cannot hold one trial; NotNowError if it could, but has not grown for a long time.
    """
    spec = plan.spec
    workers, claim = spec.workers, claim_of(spec)
    nodes = grown_resources(min(spec.concurrent or 1, trials) * workers, claim)
    fit, needs, cluster = slots(nodes, claim) // workers, needs_of(spec), described(nodes)
    if not fit:
        if can_grow():
            raise NotNowError(
                f"a trial needs {needs}, and the cluster has {cluster} and has not grown; try again later"
            )
        raise InputError(f"a trial needs {needs}, and the cluster has {cluster}; give a trial fewer of them")
    at_once = min(spec.concurrent or fit, fit, trials)
    if workers == 1 and not spec.gpus_per_trial:
        plan = replace(plan, cpus=cores_each(nodes, at_once))
        needs = in_words({"CPU": plan.cpus})
    print(f"{trials} trials to go, {fit} fit, {at_once} at a time with {needs} each ({cluster})", flush=True)
    return at_once, plan


def claim_of(spec: SearchSpec) -> Resources:
    """The least that each of a trial's workers claims; all of it is on one node."""
    if spec.workers > 1:  # several processes, which may be on different nodes
        return {"GPU": 1} if spec.gpus_per_trial else {"CPU": CPU_SHARE}
    return {"GPU": spec.gpus_per_trial, "CPU": 1} if spec.gpus_per_trial else {"CPU": 1}


def needs_of(spec: SearchSpec) -> str:
    """The least that a trial needs, in words."""
    if spec.workers > 1:
        return in_words({"GPU" if spec.gpus_per_trial else "CPU": spec.workers})
    return in_words(claim_of(spec))
