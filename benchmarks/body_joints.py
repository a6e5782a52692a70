"""How much faster 49 joints are when no vertex is built: forward and backward, at equal outputs.

Prints a table and writes benchmarks/out/body_joints.json with ``speedup_forward`` and ``speedup_backward``.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from glot.human.body import load_body
from glot.human.rotation import axis_angle_to_rotmat

BODIES, REPEATS = 256, 7


def main() -> None:
    torch.manual_seed(0)
    body = load_body()
    rotmats = axis_angle_to_rotmat(0.3 * torch.randn(BODIES, 24, 3)).requires_grad_()
    betas = torch.randn(BODIES, 10).requires_grad_()
    paths: dict[str, Callable[[], torch.Tensor]] = {
        "through vertices": lambda: body(rotmats, betas).joints,
        "joints only": lambda: body.joints(rotmats, betas),
    }
    difference = float((paths["through vertices"]() - paths["joints only"]()).detach().abs().max())
    assert difference < 1e-6, f"outputs differ by {difference} m"
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for _ in range(REPEATS):  # interleaved, so that other load hits both
        for name, path in paths.items():
            start = time.perf_counter()
            joints = path()
            middle = time.perf_counter()
            joints.square().mean().backward()
            seconds[name].append((middle - start, time.perf_counter() - start))
    forward = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in seconds.items()}
    both = {name: statistics.median(pair[1] for pair in pairs) for name, pairs in seconds.items()}
    print(f"{BODIES} bodies of {len(body.template)} vertices, largest difference {difference * 1e6:.2f} µm")
    for name in paths:
        print(f"{name:>18}: forward {forward[name] * 1e3:8.1f} ms, with backward {both[name] * 1e3:8.1f} ms")
    slow, fast = paths
    out = Path(__file__).parent / "out" / "body_joints.json"
    out.parent.mkdir(exist_ok=True)
    figures = {
        "speedup_forward": forward[slow] / forward[fast],
        "speedup_backward": both[slow] / both[fast],
        "difference_m": difference,
    }
    out.write_text(json.dumps(figures, indent=1) + "\n")
    print(out.read_text(), end="")


if __name__ == "__main__":
    main()
