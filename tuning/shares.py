"""How many trials a cluster holds at a time, and each trial's share of its cores."""

from dataclasses import replace

from glot.errors import InputError
from glot.training.cluster import alive_nodes
from tuning.spec import SearchSpec
from tuning.trial import CPU_SHARE, TrialPlan


def share_cluster(plan: TrialPlan, trials: int) -> tuple[int, TrialPlan]:
    """How many of the ``trials`` run at a time, and the plan with a trial's share of the cores.

    Raises InputError if the cluster cannot hold one trial.
    """
    spec = plan.spec
    nodes = [node["Resources"] for node in alive_nodes()]
    cores, gpus = sum(n.get("CPU", 0) for n in nodes), sum(n.get("GPU", 0) for n in nodes)
    cluster = f"{cores:.0f} CPU cores and {gpus:.0f} GPUs on {len(nodes)} node{'s' if len(nodes) > 1 else ''}"
    fit, needs = slots(spec, nodes)
    if not fit:
        raise InputError(f"a trial needs {needs}, and the cluster has {cluster}; give a trial fewer of them")
    at_once = min(spec.concurrent or fit, fit, trials)
    if spec.workers == 1 and not spec.gpus_per_trial:
        plan = replace(plan, cpus=cores_of_a_trial([int(n.get("CPU", 0)) for n in nodes], at_once))
        needs = f"{plan.cpus} core{'s' if plan.cpus > 1 else ''}"
    print(f"{trials} trials to go, {fit} fit, {at_once} at a time with {needs} each ({cluster})", flush=True)
    return at_once, plan


def cores_of_a_trial(cores: list[int], at_once: int) -> int:
    """The most cores that each of ``at_once`` trials can have, where each trial is on one node.

    ``cores``: of each node. The nodes hold ``at_once`` trials of one core.
    """
    return next(share for share in range(max(cores), 0, -1) if sum(n // share for n in cores) >= at_once)


def slots(spec: SearchSpec, nodes: list[dict[str, float]]) -> tuple[int, str]:
    """How many trials the nodes hold at a time, and what one trial needs, in words.

    ``nodes``: the resources of each node. Each of a trial's workers is on one node.
    """
    gpus = spec.gpus_per_trial
    if spec.workers > 1:  # several processes, which may be on different nodes
        kind, needed = ("GPU", 1.0) if gpus else ("CPU", CPU_SHARE)
        fit = sum(int(n.get(kind, 0) / needed) for n in nodes) // spec.workers
        return fit, f"{gpus:.0f} GPUs" if gpus else f"{spec.workers} cores"
    if gpus:
        fit = sum(min(int(n.get("GPU", 0) / gpus + 1e-6), int(n.get("CPU", 0))) for n in nodes)
        return fit, f"{gpus:g} GPU and a core"
    return sum(int(n.get("CPU", 0)) for n in nodes), "a core"
