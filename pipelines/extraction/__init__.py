"""Datasets in, feature sets out, as Ray Data jobs; and the job that makes bodies of many videos.

spec          the options of extract_features
datasets      which datasets to extract, with the folders of $GLOT_HOME filled in
job           the whole job: what is left of the units to workers, then the sets are published
split_run     one split in one run: its plan, its outcomes, what is left
ingredients   what a set is made with: networks, body, occluders
worker        the worker that extracts units
units         what is done with one unit: decode, crop, features, fragment
streaming     several units at once, for workers with a GPU
full_batches  crops of several units, in batches of one size, for the network
outcome_logs  where the job's books keep the outcomes
planning_job  many sources planned by many workers
packing_job   many parts packed by many workers
occlusion     objects pasted over crops
precision     int8 and bfloat16: calibration, and how much features change
reference     targets rounded as in the reference
video_bodies  bodies of many videos at once: the job behind predict_videos
"""
