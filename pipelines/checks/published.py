"""The counts of a feature set in; their comparison with published counts (papers, code, issue threads) out."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from glot.features.schema import Manifest


class Figure(NamedTuple):
    """A published count: from ``low`` to ``high``. If ``low`` is 0, only an upper bound is published."""

    what: str  # a key of Summary.totals
    low: int
    high: int
    note: str = ""

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:,}"
        return f"{self.low:,} to {self.high:,}" if self.low else f"at most {self.high:,}"


def exactly(what: str, count: int, note: str = "") -> Figure:
    return Figure(what, count, count, note)


def at_most(what: str, count: int, note: str = "") -> Figure:
    return Figure(what, 0, count, note)


FIGURES: dict[tuple[str, str], tuple[Figure, ...]] = {
    ("3dpw", "train"): (exactly("sequences", 24), exactly("tracks", 34)),
    ("3dpw", "validation"): (
        exactly("sequences", 12),
        Figure("windows at every row", 10_113, 10_176, "159 batches of 64 in GLoT's log"),
    ),
    ("3dpw", "test"): (
        exactly("sequences", 24),
        exactly("tracks", 37),
        exactly("evaluated rows", 34_561, "TCMR and GLoT; 35,515 where rows with few joints are kept"),
    ),
    # At 25 of its 50 fps, a clip of n frames has n / 2 rows, rounded up.
    ("human36m", "train"): (exactly("tracks", 600), Figure("rows", 779_876, 780_476, "1,559,752 frames at 50 fps")),
    ("human36m", "test"): (exactly("tracks", 239), Figure("rows", 274_410, 275_561, "two counts differ")),
    ("mpi_inf_3dhp", "train"): (at_most("rows", 1_052_736, "before those that leave the picture are dropped"),),
    ("mpi_inf_3dhp", "test"): (at_most("valid rows", 2_929, "before those that leave the picture are dropped"),),
    ("insta_variety", "train"): (exactly("sequences", 273, "files"), exactly("tracks", 13_601)),
    ("penn_action", "train"): (at_most("tracks", 2_326, "of train and test together"),),
    ("penn_action", "test"): (at_most("tracks", 2_326, "of train and test together"),),
    ("posetrack", "train"): (at_most("sequences", 593, "annotation files"),),
}  # fmt: skip

# 3DPW's sequences, and how many people each has. For the validation split the number of people is not published.
THREEDPW: dict[str, Mapping[str, int | None]] = {
    "train": {
        "courtyard_arguing_00": 2, "courtyard_backpack_00": 1, "courtyard_basketball_00": 2,
        "courtyard_bodyScannerMotions_00": 1, "courtyard_box_00": 1, "courtyard_capoeira_00": 2,
        "courtyard_captureSelfies_00": 2, "courtyard_dancing_01": 2, "courtyard_giveDirections_00": 2,
        "courtyard_golf_00": 1, "courtyard_goodNews_00": 2, "courtyard_jacket_00": 1, "courtyard_laceShoe_00": 1,
        "courtyard_rangeOfMotions_00": 2, "courtyard_relaxOnBench_00": 1, "courtyard_relaxOnBench_01": 1,
        "courtyard_shakeHands_00": 2, "courtyard_warmWelcome_00": 2, "outdoors_climbing_00": 1,
        "outdoors_climbing_01": 1, "outdoors_climbing_02": 1, "outdoors_freestyle_00": 1, "outdoors_slalom_00": 1,
        "outdoors_slalom_01": 1,
    },
    "validation": dict.fromkeys(
        (
            "courtyard_basketball_01", "courtyard_dancing_00", "courtyard_drinking_00", "courtyard_hug_00",
            "courtyard_jumpBench_01", "courtyard_rangeOfMotions_01", "downtown_walkDownhill_00",
            "outdoors_crosscountry_00", "outdoors_freestyle_01", "outdoors_golf_00", "outdoors_parcours_00",
            "outdoors_parcours_01",
        )
    ),
    "test": {
        "downtown_arguing_00": 2, "downtown_bar_00": 2, "downtown_bus_00": 2, "downtown_cafe_00": 2,
        "downtown_car_00": 2, "downtown_crossStreets_00": 2, "downtown_downstairs_00": 1, "downtown_enterShop_00": 1,
        "downtown_rampAndStairs_00": 2, "downtown_runForBus_00": 2, "downtown_runForBus_01": 2,
        "downtown_sitOnStairs_00": 2, "downtown_stairs_00": 1, "downtown_upstairs_00": 1, "downtown_walkBridge_01": 1,
        "downtown_walking_00": 2, "downtown_walkUphill_00": 1, "downtown_warmWelcome_00": 2,
        "downtown_weeklyMarket_00": 1, "downtown_windowShopping_00": 1, "flat_guitar_01": 1, "flat_packBags_00": 1,
        "office_phoneCall_00": 2, "outdoors_fencing_01": 1,
    },
}  # fmt: skip
NO_COUNTS = {"bytes", "files", "modified", "rows"}  # numbers in the entry of a source that say what file it is
SHOWN_SEQUENCES = 6  # largest number of missing sequences that are printed


def compare(manifest: Manifest, found: Mapping[str, int], tracks: set[str]) -> list[str]:
    """Lines that show each published figure of the split beside the count of the set, and what explains a difference.

    ``found`` is Summary.totals, ``tracks`` are the names of all tracks.
    """
    figures = FIGURES.get((manifest.dataset, manifest.split), ())
    if not figures:
        return ["no figures are published for this split"]
    lines, short = [], False
    known = THREEDPW.get(manifest.split, {}) if manifest.dataset == "3dpw" else {}
    sequences = {sequence_of(track, "3dpw") for track in tracks}
    if known and not sequences & set(known):
        return ["nothing to compare: none of 3DPW's sequences is in the set, so it is another dataset in 3DPW's layout"]
    for figure in figures:
        count = found[figure.what]
        note = f" ({figure.note})" if figure.note else ""
        verdict = ""
        if count > figure.high:
            verdict = f": {count - figure.high:,} too many: another release, or something is in the set twice"
        elif count < figure.low:
            verdict, short = f": {figure.low - count:,} fewer", True
        lines.append(f"{figure.what:<21}{count:>11,}   published {figure}{note}{verdict}")
    return [*lines, *(explain(manifest, known, tracks) if short else [])]


def explain(manifest: Manifest, known: Mapping[str, int | None], tracks: set[str]) -> list[str]:
    """Lines about why a set may be smaller than published."""
    reasons = []
    people = Counter(sequence_of(track, "3dpw") for track in tracks)
    if missing := [name for name in known if name not in people]:
        shown = ", ".join(missing[:SHOWN_SEQUENCES]) + (", ..." if len(missing) > SHOWN_SEQUENCES else "")
        reasons.append(f"explained by {len(missing)} sequences that are not in the set: {shown}")
    for name, wanted in known.items():
        if name in people and wanted and people[name] < wanted:
            reasons.append(f"explained by {name}: {people[name]} of its {wanted} people")
    if manifest.skipped:
        frames = sum(entry["frames"] for entry in manifest.skipped)
        reasons.append(f"explained by {frames:,} frames that could not be read (see skipped)")
    if boxless := decoder_counts(manifest).get("rows_without_box"):
        reasons.append(f"explained by {boxless:,} rows without a usable box")
    return reasons or ["nothing in the manifest explains the difference"]


def sequence_of(track_id: str, dataset: str) -> str:
    """The sequence or the file that a track is from. Decoders name tracks SEQUENCE_PERSON, or FILE-RECORD."""
    return track_id.rpartition("-" if dataset == "insta_variety" else "_")[0]


def decoder_counts(manifest: Manifest) -> Counter[str]:
    """The decoder's counts, summed over all files of a set, without what describes the files (NO_COUNTS)."""
    counts: Counter[str] = Counter()
    for source in manifest.sources:
        for name, value in source.items():
            if isinstance(value, int) and name not in NO_COUNTS:
                counts[name] += value
    return counts
