"""The benchmarks of the model run, and find that the plain formulation has equal outputs and gradients."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.places import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "speedups", "differences"),
    [
        (
            "train_step",
            ["speedup", "speedup_as_trained"],
            {f"{what}_relative_difference{way}": 1e-4 for what in ("loss", "gradient") for way in ("", "_as_trained")},
        ),
        ("evaluate", [f"speedup_batch{n}" for n in (1, 8, 64)], {f"difference_m_batch{n}": 1e-4 for n in (1, 8, 64)}),
    ],
)
def test_the_plain_formulation_is_equal(
    tmp_path: Path, name: str, speedups: list[str], differences: dict[str, float]
) -> None:
    pytest.importorskip("smplx")
    command = [sys.executable, f"benchmarks/{name}.py", "--repeats", "1", "--out", str(tmp_path / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(figures[speedup] > 0 for speedup in speedups)
    assert all(figures[difference] <= limit for difference, limit in differences.items())
