"""Datasets in, feature sets out, as Ray Data jobs; and the pool of workers that also makes bodies of videos.

spec            the options of extract_features
datasets        which datasets to extract, with the folders of $GLOT_HOME filled in
job             the whole job: units, missing units to workers, manifests
ingredients     what a set is made with: networks, body, occluders
worker_pool     how many workers, the Ray Data job, the base of all workers
worker          the worker that extracts units
units           what is done with one unit: decode, crop, features, part
fragments       the Parquet file of a unit's rows
plan            the units of a set, found once for all runs
plan_file       the files of a plan
planning        sources listed, cut and added to the plan
differences     new, changed and gone sources
ledger          what became of each unit; the settings that a set was started with
settings        the folder of a set: its settings, its files, one run at a time
outcomes        what became of each unit
packed          which units are in which part
packing         units to parts, rows of units into a part
manifest_entries  what the manifest says about sources and skipped frames
publishing      parts, then the manifest, written last
earlier_sets    sets that earlier code has begun or finished
status          the state of a set in words
lease           one run at a time in a folder
tries           how often workers began with a piece of work
tally           counts from all workers, and the progress line
messages        what commands print about sets
occlusion       objects pasted over crops
precision       int8 and bfloat16: calibration, and how much features change
reference       targets rounded as in the reference
video_bodies    bodies of many videos at once: the job behind predict_videos
"""
