"""How many workers fit on nodes: by counting, against all ways of placing them."""

from collections.abc import Sequence

import pytest

from glot.training.cluster.placement import cores_each, described, in_words, slots


@pytest.mark.parametrize(
    ("nodes", "claim", "expected"),
    [
        ([{"CPU": 1}, {"CPU": 1}], {"CPU": 2}, 0),
        ([{"CPU": 3}, {"CPU": 5}], {"CPU": 2}, 3),
        ([{"CPU": 0}, {"CPU": 4}], {"CPU": 1}, 4),
        ([{"memory": 1.0}], {"CPU": 1}, 0),
        ([{"CPU": 20}], {"CPU": 0.95}, 21),  # Ray takes cores as one amount,
        ([{"CPU": 64, "GPU": 2}], {"GPU": 0.6, "CPU": 1}, 2),  # but a part of a GPU is on one of them.
        ([{"CPU": 64, "GPU": 1}], {"GPU": 1 / 3, "CPU": 1}, 3),
        ([{"CPU": 2, "GPU": 8}, {"CPU": 64}], {"GPU": 1, "CPU": 1}, 2),
        ([{"CPU": 1, "GPU": 2}, {"CPU": 0, "GPU": 1}], {"GPU": 1}, 3),
        ([{"GPU": 3}, {"GPU": 3}], {"GPU": 2}, 2),
    ],
)
def test_each_worker_is_on_one_node(nodes: list[dict[str, float]], claim: dict[str, float], expected: int) -> None:
    assert slots(nodes, claim) == expected


@pytest.mark.parametrize("cores", [(0, 8), (8,), (1, 1), (3, 5), (2, 64), (0, 0, 4, 4), (1.5, 2.5), (0,), ()])
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_no_worker_could_have_more_cores(cores: Sequence[float], workers: int) -> None:
    nodes = [{"CPU": count} for count in cores]
    share = cores_each(nodes, workers)
    assert slots(nodes, {"CPU": share + 1}) < workers
    assert not share or slots(nodes, {"CPU": share}) >= workers


def test_in_words() -> None:
    assert described([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 0}]) == "8 CPU cores and 1 GPU on 2 nodes"
    assert described([{"CPU": 1.0}]) == "1 CPU core and 0 GPUs on 1 node"
    assert in_words({"GPU": 0.5, "CPU": 1}) == "0.5 GPU and 1 core" and in_words({"CPU": 2}) == "2 cores"
