"""Features of other projects (VIBE, TCMR, GLoT; WHAM, GVHMR) in, feature sets out. Nothing in a file is executed.

spec               what to import: the options of import_features
layouts            what the files of SPIN's features look like, by dataset
hmr2_layouts       what WHAM's and GVHMR's files of HMR2.0's features look like
importing          the import: tracks to parts, then the manifest
shares             tracks to shares, each a part; which are done; the manifest
earlier_imports    imports that earlier code began
sources            the file or folder, whoever made it: its columns, its hash
feature_dbs        an open file: checks its arrays, finds its tracks
feature_rows       rows of a file to clips and features
feature_columns    the arrays of a joblib or HDF5 file, read a few rows at a time
wham_files         WHAM's files
gvhmr_files        GVHMR's files
sequences          columns of many sequences as one
joblib_file        joblib dumps, with their arrays left in the file
long_bytes         pickles, with their long bytes left in the file
torch_pickles      tensors in a joblib dump
torch_places       tensors in a file of torch.save
"""
