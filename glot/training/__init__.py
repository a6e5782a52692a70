"""Feature sets and a recipe in; a trained model's checkpoints and its MLflow run out, with Ray Train or in one process.

spec               what a run is asked for (the command's options), and what each worker is given
feature_sets       the feature sets of a recipe, and what they were made with
run_state          a run's state in its folder: holding and claiming it, its epochs
driver             fit: check, prepare, launch, conclude, publish
workers            the two ways to launch workers: with Ray Train, or in this process
failures           kinds of failures of workers: which are tried again
cluster/           a Ray cluster, or Ray on this machine: joining it, and what it can hold
loop               what each worker does: start or continue, then step after step
stepper            one optimiser step; the learning rate
sampler            the batch of a step
batch_split        how many windows of a step each worker gets, and whether that is sensible
step_checkpoints   the checkpoints that an interrupted run continues from
writer             rank 0's record: metrics, checkpoints
progress           the printed lines of progress
curves             a table and a picture of the epochs
curve_points       the points of the curves, in a file of the run's folder
tracking           the MLflow run of a training run: its points while it trains, its results at the end
mlflow_runs        MLflow's store: preparing it, writing into runs
mlflow_store       which MLflow store a command logs into, and what a run is there
"""
