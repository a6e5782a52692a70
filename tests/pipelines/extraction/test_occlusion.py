"""Occluders: the right objects of Pascal VOC, soft edges, and crops that depend on seed, track and frame alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from glot.errors import InputError
from pipelines.extraction.occlusion import Occlusion, load_objects, load_occlusion, paste
from pipelines.extraction.spec import ExtractSpec
from tests.fixtures.voc import palette, write_picture, write_voc

GREY = np.full((224, 224, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("VOCdevkit") / "VOC2012")


@pytest.fixture(scope="module")
def objects(voc: Path) -> tuple[np.ndarray, ...]:
    return load_objects(voc, people=False)


def middle(item: np.ndarray) -> list[int]:
    return item[item.shape[0] // 2, item.shape[1] // 2].tolist()


def near(found: list[int], wanted: list[int]) -> bool:
    return bool(np.abs(np.subtract(found, wanted)).max() < 12)  # JPEG


def test_whole_clear_segmented_objects_are_cut_out_and_people_are_not(objects: tuple[np.ndarray, ...]) -> None:
    assert [item.shape for item in objects] == [(40, 36, 4), (30, 50, 4), (20, 80, 4)]  # half of 81 x 71, 61 x 101, ...
    for item, colour in zip(objects, ([220, 20, 20], [20, 60, 220], [220, 220, 0]), strict=True):
        assert near(middle(item), [*colour, 255])
        assert item[0, 0].tolist() == [0, 0, 0, 0]  # nothing of the green background


def test_reference_preprocessing_pastes_people_too(voc: Path) -> None:
    everybody = load_objects(voc, people=True)
    assert len(everybody) == 4 and near(middle(everybody[0]), [255, 255, 255, 255])


def test_edges_are_soft_and_keep_their_colour(objects: tuple[np.ndarray, ...]) -> None:
    crop = GREY.copy()
    paste(crop, objects[0], 1.0, np.array([112.0, 112.0]))
    alpha = objects[0][..., 3]
    assert 0 < ((alpha > 150) & (alpha < 210)).sum() < (alpha == 255).sum()  # the rim's 192, between 0 and 255
    line = crop[112, 112 - 18 : 112].astype(int)  # from the edge inwards: grey, then a mix, then red
    assert near(line[-1].tolist(), [220, 20, 20])
    assert (np.diff(line[:, 0]) >= -6).all() and 128 < line[1, 0] < 210 < line[4, 0]
    assert (crop[:, :, 1] <= 130).all()  # an edge with green background would be brighter than the grey


@pytest.mark.parametrize("centre", [(0, 0), (224, 224), (112, -5), (-300, 0), (500, 500), (223.9, 0.2)])
def test_objects_are_clipped_at_the_borders(objects: tuple[np.ndarray, ...], centre: tuple[float, float]) -> None:
    crop, wide = GREY.copy(), np.full((1224, 1224, 3), 128, np.uint8)
    paste(crop, objects[1], 0.875, np.array(centre))
    paste(wide, objects[1], 0.875, np.add(centre, 500))
    assert np.array_equal(crop, wide[500:724, 500:724])


def test_a_larger_crop_shows_the_same_objects_larger(objects: tuple[np.ndarray, ...]) -> None:
    occlusion, large = Occlusion(objects, "frame", 3, people=False), cv2.resize(GREY, (448, 448))
    for frame in range(5):
        small = occlusion.paste(GREY, "a_0", frame)
        halved = cv2.resize(occlusion.paste(large, "a_0", frame), (224, 224), interpolation=cv2.INTER_AREA)
        differs = np.abs(halved.astype(int) - small).max(2) > 60
        assert (small != 128).any(2).mean() > 0.01 and differs.mean() < 0.02  # edges only


@pytest.mark.parametrize("per", ["frame", "track"])
def test_a_crop_follows_from_seed_track_and_frame_alone(objects: tuple[np.ndarray, ...], per: str) -> None:
    occlusion = Occlusion(objects, per, 3, people=False)
    places = [(track, frame) for track in ("a_0", "a_1") for frame in range(0, 300, 10)]
    forwards = {place: occlusion.paste(GREY, *place) for place in places}
    again = Occlusion(tuple(item.copy() for item in objects), per, 3, people=False)
    assert all(np.array_equal(again.paste(GREY, *place), forwards[place]) for place in reversed(places))
    assert any(not np.array_equal(forwards["a_0", frame], forwards["a_1", frame]) for frame in range(0, 300, 10))
    other = Occlusion(objects, per, 4, people=False)
    assert any(not np.array_equal(other.paste(GREY, *place), forwards[place]) for place in places)
    assert (GREY == 128).all()


def covered(occlusion: Occlusion, frames: range) -> np.ndarray:
    """(frames, 224, 224) where something is pasted."""
    return np.array([(occlusion.paste(GREY, "a_0", frame) != 128).any(-1) for frame in frames])


def test_per_frame_flickers_and_per_track_passes_by(objects: tuple[np.ndarray, ...]) -> None:
    frames = range(400)
    flicker, passing = (covered(Occlusion(objects, per, 0, people=False), frames) for per in ("frame", "track"))
    change = [(masks[1:] != masks[:-1]).mean() / masks.mean() for masks in (flicker, passing)]
    assert change[0] > 1 and change[1] < 0.3
    assert flicker.any((1, 2)).mean() > 0.95 and passing.any((1, 2)).mean() > 0.5
    # Objects come from outside the crop: newly covered pixels are at the border, or beside pixels covered before.
    kernel = np.ones((31, 31), np.uint8)
    for before, after in zip(passing[:-1], passing[1:], strict=True):
        reach = cv2.dilate(np.pad(before.astype(np.uint8), 8, constant_values=1), kernel)[8:-8, 8:-8]
        assert not (after & (reach == 0)).any()


def test_per_frame_counts_and_sizes_are_the_published_ones() -> None:
    white = np.full((100, 100, 4), 255, np.uint8)
    occlusion = Occlusion((white,), "frame", 0, people=False)
    drawn = [occlusion._new_objects("a", frame) for frame in range(2000)]
    counts = np.bincount([len(items) for items in drawn], minlength=9)
    assert counts[0] == counts[8] == 0 and (counts[1:8] > 200).all()
    scales = np.array([scale for items in drawn for _, scale, _ in items])
    assert 0.175 <= scales.min() < 0.18 and 0.87 < scales.max() <= 0.875


def test_the_description_changes_with_everything_that_changes_crops(voc: Path, objects: tuple[np.ndarray, ...]) -> None:
    def describe(items: tuple[np.ndarray, ...] = objects, per: str = "frame", seed: int = 0) -> str:
        return str(Occlusion(items, per, seed, people=False).describe())

    other = (*objects[:-1], np.where(objects[-1] > 0, objects[-1] - 1, 0).astype(np.uint8))
    assert describe() == describe(load_objects(voc, people=False))
    assert len({describe(), describe(other), describe(objects[:-1]), describe(per="track"), describe(seed=1)}) == 5


def test_options_that_do_not_fit_together_are_refused(voc: Path, tmp_path: Path) -> None:
    def load(
        folder: Path | None, per: str | None = None, preprocessing: str = "corrected", split: str = "train"
    ) -> str:
        spec = ExtractSpec(
            dataset="3dpw", occluders=folder, occluders_per=per, preprocessing=preprocessing, split=split
        )
        occlusion = load_occlusion(spec)
        return f"{occlusion.per} {len(occlusion.objects)}" if occlusion else "none"

    assert [load(None), load(voc), load(voc, preprocessing="reference")] == ["none", "track 3", "frame 4"]
    for arguments, reason in (
        ((None, "frame"), "nothing to paste without --occluders"),
        ((voc, "video"), "--occluders-per video: there is frame and track"),
        ((voc, None, "corrected", "all"), "name one --split"),
        ((tmp_path,), "no Annotations, JPEGImages, SegmentationObject in it; give VOCdevkit/VOC2012"),
    ):
        with pytest.raises(InputError, match=reason):
            load(*arguments)


def test_broken_and_hostile_files_are_refused_by_name(tmp_path: Path) -> None:
    def broken(relative: str, content: bytes) -> pytest.RaisesExc[InputError]:
        root = write_voc(tmp_path / str(len(list(tmp_path.iterdir()))))
        (root / relative).write_bytes(content)
        with pytest.raises(InputError, match=Path(relative).stem) as error:
            load_objects(root, people=False)
        return error

    annotation, picture = "Annotations/2007_000039.xml", "JPEGImages/2007_000039.jpg"
    whole = write_voc(tmp_path / "whole")
    xml = (whole / annotation).read_bytes()
    assert "not a readable annotation" in str(broken(annotation, xml[:-30]).value)
    assert "no box of four numbers" in str(broken(annotation, xml.replace(b"xmin", b"xmun")).value)
    assert "no box of four numbers" in str(broken(annotation, xml.replace(b"<ymax>", b"<ymax>nan")).value)
    laughs = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>' + xml
    assert "declares entities" in str(broken(annotation, laughs).value)
    assert "declares entities" in str(broken(annotation, laughs.decode().encode("utf-16")).value)
    assert "truncated JPEG" in str(broken(picture, (whole / picture).read_bytes()[:900]).value)
    assert "not a readable picture" in str(broken("SegmentationObject/2007_000039.png", b"no picture").value)
    small = cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()
    assert "differ in size" in str(broken("SegmentationObject/2007_000039.png", small).value)
    (tmp_path / "empty").mkdir()
    write_picture(tmp_path / "empty", "2007_000001", [])
    with pytest.raises(InputError, match="no object in them"):
        load_objects(tmp_path / "empty", people=True)


def test_objects_in_a_mask_differ_by_the_colours_of_its_palette(voc: Path) -> None:
    labels = cv2.imread(str(voc / "SegmentationObject" / "2007_000032.png"))
    colours = np.frombuffer(palette(), np.uint8).reshape(-1, 3)[:, ::-1]
    present = {tuple(colour) for colour in np.unique(labels.reshape(-1, 3), axis=0).tolist()}
    assert present == {tuple(colours[value].tolist()) for value in (0, 1, 2, 3, 255)}
