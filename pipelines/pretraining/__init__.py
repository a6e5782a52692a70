"""Rendered people in, weights of a ResNet-50 whose features describe poses out: trained from scratch.

spec                options of pretrain_backbone
recipe              what decides the result: crop sizes, learning rate, length
renders             the renders, kept on disk
training_crops      augmented crops of the renders, in batches
pose_net            the network: a ResNet-50 with heads that are thrown away
pose_loss           the loss
pretraining_run     a run in a folder: steps, validation, checkpoints, log
training            renders, recipe and the training loop
backbone_export     features scaled to one standard deviation, weights as safetensors
"""
