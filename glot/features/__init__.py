"""Features of people and their labels, frame by frame: what a feature set is, and windows of it for training.

schema      the contract: columns of a feature set, its manifest
store       a feature set as memory-mapped arrays; batches of windows
local_copy  the copy of a feature set on a machine that ``store`` maps
dataset_folders  the datasets in $GLOT_HOME/data, and the commands that make them
options     the command options of feature sets, and what is printed where one is missing
windows     which rows make a window, and which row its prediction belongs to
backbones/  the frozen networks that make features of crops
"""
