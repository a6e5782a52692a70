"""Features of people and their labels, frame by frame: what a feature set is, and windows of it for training.

schema           the contract: columns of a feature set, its manifest
store            a feature set as memory-mapped arrays; batches of windows
layout           which rows of the parts belong to which track, and where they go in the copy
local_copy       a machine's copy of a feature set, which ``store`` maps into memory
copy_writing     the files of such a copy
copy_cache       all such copies of a machine: which are in use, and room for one more
dataset_folders  the datasets in $GLOT_HOME/data, and the commands that make them
options          command options for feature sets, and the message where a set is missing
moments          mean and scatter matrix of features that do not fit into memory
motion_sets      sets of real motions, and their local copies
windows          which rows make a window, and which row its prediction belongs to
backbones/       the frozen networks that make features of crops
"""
