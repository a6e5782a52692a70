"""Feature sets while they are made: the plan of their units, the outcome of each unit, parts and the manifest.

settings          the names in a set's folder, what it was started with, one run at a time
lease             a lock, or a note in an object store
plan              the live units of a set
plan_file         a generation of the plan as Parquet
planning          the sources of a dataset to units, with their boxes
differences       which sources are new, changed or gone
outcomes          what became of each unit
fragments         the rows of one unit
packed            which units are in which part
packing           fragments to parts
manifest_entries  the sources and what was skipped, for the manifest
publishing        parts and the manifest, written last
earlier_sets      sets that earlier code began
status            how far a set is, in words
messages          what commands print about sets
"""
