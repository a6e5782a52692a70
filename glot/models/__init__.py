"""Temporal models: windows of features in, SMPL parameters out; training losses, inference, checkpoints.

glot            the whole model, GLoT
global_branch   the masked encoder and decoder, the iterative regressor
local_branch    the correction of the middle frames, the kinematic regressor (HSCR)
blocks          transformer blocks and attention
smpl_params     the 157 numbers of an estimate, and the SMPL parameters made of them
losses          the loss of both branches
inference       finding and loading a model, predicting a track
frozen          layers and blocks of fixed weights, for inference
sliding         fast inference along a track
whitening       input layers that start as a whitening of the features
cost            parameters and multiply-accumulates
attention_maps  what the layers attend to
checkpoint      checkpoints of this project, written and read
official_files  checkpoints of the official code and of SPIN
spec            checkpoints as options, and the options of ``official`` and ``publish``
"""
