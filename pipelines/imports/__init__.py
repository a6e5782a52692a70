"""Feature files of other projects (VIBE, TCMR, GLoT) in, feature sets out. Nothing in a file is executed.

spec               what to import: the options of import_features
layouts            what each dataset's files look like
importing          the import: tracks to parts, then the manifest
shares             tracks to shares, each a part; which are done; the manifest
earlier_imports    imports that earlier code began
feature_dbs        an open file: checks its arrays, finds its tracks
feature_rows       rows of a file to clips and features
feature_columns    the arrays of a joblib or HDF5 file, read a few rows at a time
joblib_file        joblib dumps, with their arrays left in the file
"""
