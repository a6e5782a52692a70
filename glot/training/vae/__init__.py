"""Sets of real motions in; a trained motion VAE, which MEVA's coarse motion comes from, out.

spec             what a run is asked for (the command's options)
motion_windows   the windows of motions of a step, and the motions that are held out
motion_errors    how far decoded motions are from the motions
vae_training     a run from its folder to its results
vae_checkpoints  the checkpoints that an interrupted run continues from
vae_curves       the table and the picture of a run
"""
