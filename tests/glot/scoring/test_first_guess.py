"""First guesses of a backbone: they come through parts and local copies as they are, and are scored frame by frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from glot.errors import InputError
from glot.features.schema import GUESS, GUESS_SIZE, column, guess_columns, open_part, parts, read_manifest, read_table
from glot.features.schema import write_manifest as rewrite
from glot.features.store import FeatureStore
from glot.human.body import load_body
from glot.scoring.baselines import guessed_bodies
from glot.scoring.evaluation import evaluate_predictor
from tests.fixtures.features import write_feature_set, write_split_set


def with_guesses(folder: Path, noise: float) -> NDArray[np.float32]:
    """Gives a set guesses: its own poses and shapes with noise. Returns them, (N, GUESS_SIZE), in the set's order."""
    manifest, rng, found = read_manifest(folder), np.random.default_rng(5), []
    guessed = replace(manifest, backbone=manifest.backbone | {"guess_size": GUESS_SIZE})
    for part, entry in zip(parts(folder, manifest), manifest.parts, strict=True):
        table = pq.read_table(folder / entry["name"])
        truth = [np.array(table[name].to_pylist(), np.float32).reshape(len(table), -1) for name in ("pose", "betas")]
        values = np.concatenate([*truth, rng.normal(size=(len(table), 3))], axis=1).astype(np.float32)
        values[:, :72] += rng.normal(0, noise, (len(table), 72)) if noise else 0
        for name, columns in guess_columns(values).items():
            field = guessed.row_schema.field(name)
            table = table.append_column(field, column(columns, field.type))
        pq.write_table(table, part.path, use_dictionary=False)
        entry["bytes"] = part.path.stat().st_size
        found.append(values)
    rewrite(folder, replace(guessed, parts=manifest.parts))
    return np.concatenate(found)


@pytest.mark.parametrize("split", [False, True], ids=["whole", "in pieces"])
def test_a_guess_belongs_to_its_row(tmp_path: Path, split: bool) -> None:
    """Also where tracks go on in later parts, so that the rows of the copy have another order."""
    folder = tmp_path / "set"
    write_feature_set(folder, tracks=[20, 18, 7])
    if split:
        folder = tmp_path / "split"
        write_split_set(folder, tmp_path / "set")
    values, table = with_guesses(folder, 0.1), read_table(folder)
    keys = list(zip(table["track_id"].to_pylist(), table["frame_index"].to_pylist(), strict=True))
    store = FeatureStore.open(folder, cache=tmp_path / "cache")
    for track in store.tracks:
        rows = np.arange(track.start, track.stop)
        places = [keys.index((track.track_id, frame)) for frame in store.frame_index[rows]]
        np.testing.assert_array_equal(store.guess_of(rows), values[places])


def test_the_row_of_an_evaluation_is_the_guess_frame_by_frame(tmp_path: Path) -> None:
    body, errors = load_body(), []
    for noise in (0.0, 0.1):
        folder = tmp_path / str(noise)
        write_feature_set(folder, tracks=[20, 18], body=body, split="test")
        with_guesses(folder, noise)
        store = FeatureStore.open(folder, cache=tmp_path / "cache")
        found = evaluate_predictor(guessed_bodies, store, body, frames=16, inputs=store.guess_of)["corrected"]
        assert found.frames == 38
        errors.append(found.metrics)
    assert all(errors[0][name] < 0.01 for name in ("pa_mpjpe", "mpjpe", "mpvpe", "accel"))
    assert all(errors[1][name] > 5 for name in ("pa_mpjpe", "mpjpe", "mpvpe", "accel"))


def test_a_set_without_guesses_has_no_such_columns(tmp_path: Path) -> None:
    manifest = write_feature_set(tmp_path / "set", tracks=[20])
    assert not manifest.has_guess and not GUESS.keys() & set(manifest.row_schema.names)
    (part,) = parts(tmp_path / "set", manifest)
    claimed = replace(manifest, backbone=manifest.backbone | {"guess_size": GUESS_SIZE})
    with pytest.raises(InputError, match="its columns are not those"), open_part(part, claimed.row_schema):
        pass
