"""Feature sets and a recipe in; a trained model's checkpoints and its MLflow run out, with Ray Train or in one process.

spec               what a run is asked for (the command's options), and what each worker is given
feature_sets       the feature sets of a recipe, and what they were made with
run_state          a run's state in its folder: claiming it, its epochs
driver             fit: prepare, launch, conclude, record the results
workers            the two ways to launch workers: with Ray Train, or in this process
cluster            which runs a Ray cluster can hold, and which files its nodes see
ray_session        joining or starting Ray
loop               what each worker does: start or continue, then step after step
stepper            one optimiser step; the learning rate
sampler            the batch of a step
step_checkpoints   the checkpoints that an interrupted run continues from
writer             rank 0's record: metrics, validation, checkpoints
progress           the printed lines of progress
curves             a table and a picture of the epochs
tracking           the MLflow run of a training run: opening and closing it
mlflow_runs        MLflow's store: preparing it, writing into runs
mlflow_store       which MLflow store a command logs into
"""
