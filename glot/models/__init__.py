"""Temporal models: windows of features in, SMPL parameters out; training losses, inference, checkpoints.

temporal_model    what every model promises
architectures     a configuration becomes a model
peer_model        what the four models share that GLoT is measured against
glot              GLoT
tcmr              TCMR
mps_net           MPS-Net
vibe              VIBE
meva              MEVA
parts/            what the models are made of
smpl_params       the 157 numbers of an estimate, and the SMPL parameters made of them
objectives        what each model is trained with
losses            the terms of a loss, and the loss of GLoT's branches
adversarial_loss  the losses of a model and of its motion discriminator
inference         finding and loading a model, predicting a track
prediction/       models of fixed weights along a track
whitening         input layers that start as a whitening of the features
cost              parameters and multiply-accumulates
attention_maps    what GLoT's layers attend to
checkpoint        checkpoints of this project, written and read
vae_files         motion VAEs, written, read and given to MEVA
released/         checkpoints of the releases of GLoT, of its peers and of SPIN
spec              checkpoints as options, and the options of ``official`` and ``publish``
"""
