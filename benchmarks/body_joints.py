"""The speed of 49 joints computed without vertices, against 49 joints by way of all vertices, at equal outputs.

Prints a table and writes benchmarks/out/body_joints.json with ``speedup_forward`` and ``speedup_backward``. The
latter includes forward and backward.
"""

from collections.abc import Callable
from functools import partial

import torch
from figures import OUT, write_figures
from timing import median_seconds

from glot.human.body import load_body
from glot.human.rotation import axis_angle_to_rotmat

BODIES, REPEATS = 256, 7


def forward_backward(path: Callable[[], torch.Tensor]) -> None:
    path().square().mean().backward()


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
    ways: dict[str, Callable[[], object]] = {f"{name}, forward": path for name, path in paths.items()}
    ways |= {f"{name}, both": partial(forward_backward, path) for name, path in paths.items()}
    seconds = median_seconds(ways, range(REPEATS))
    print(f"{BODIES} bodies of {len(body.template)} vertices, largest difference {difference * 1e6:.2f} µm")
    for name in paths:
        forward, both = (seconds[f"{name}, {part}"] for part in ("forward", "both"))
        print(f"{name:>18}: forward {forward * 1e3:8.1f} ms, with backward {both * 1e3:8.1f} ms")
    speedups = {
        part: seconds[f"through vertices, {part}"] / seconds[f"joints only, {part}"] for part in ("forward", "both")
    }
    figures = {
        "speedup_forward": speedups["forward"],
        "speedup_backward": speedups["both"],
        "difference_m": difference,
    }
    write_figures(OUT / "body_joints.json", figures)


if __name__ == "__main__":
    main()
