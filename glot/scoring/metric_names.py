"""The errors that are reported, in their order: the name in files and logs, the title in tables, the unit."""

METRICS = {"pa_mpjpe": "PA-MPJPE", "mpjpe": "MPJPE", "mpvpe": "MPVPE", "accel": "Accel"}
UNITS = {"pa_mpjpe": "mm", "mpjpe": "mm", "mpvpe": "mm", "accel": "mm/frame\u00b2"}
# Only VIBE's release reports it, and the paper's Table 2 has it as VIBE's Accel: it is no error.
PREDICTED_ACCEL = "accel_of_predictions"
