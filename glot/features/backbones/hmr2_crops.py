"""How three projects crop people for HMR2.0."""

from glot.human.crop_rules import CropRule

SIZE = 256  # px
# Features of one network differ between these rules.
RULES = {
    "wham": CropRule("wham", SIZE, 1.2),
    "4dhumans": CropRule("4dhumans", SIZE, 1.0, (192, 256), "gaussian"),
    "gvhmr": CropRule("gvhmr", SIZE, 1.2, (192, 256), "gaussian5"),
}
