"""Feature sets and a recipe in; a trained model's checkpoints and its MLflow run out, with Ray Train or in one process.

spec               what a run is asked for (the command's options), and what each worker is given
feature_sets       the feature sets of a recipe, and what they were made with
run_state          a run's state in its folder: holding and claiming it, its epochs
driver             fit: check, prepare, launch, conclude, publish
workers            the two ways to launch workers: with Ray Train, or in this process
failures           kinds of failures of workers: which are tried again
cluster/           a Ray cluster, or Ray on this machine: joining it, and what it can hold
loop               what each worker does: start or continue, then step after step
stepper            one optimiser step
schedule           the learning rate of every epoch
adversary          the motion discriminator's part in a step
motion_stream      the real motions of a step
worker_means       means over the workers
sampler            the batch of a step
batch_split        how many windows of a step each worker gets, and whether that is sensible
step_checkpoints   the checkpoints that an interrupted run continues from
record/            what a run records: metrics, curves, checkpoints, its run in MLflow
vae/               training of MEVA's motion VAE
"""
