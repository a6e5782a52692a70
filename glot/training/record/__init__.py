"""Values of steps and epochs in; printed lines, curves, checkpoints and a run in MLflow out.

writer        rank 0's record: metrics, checkpoints
progress      the printed lines of progress
curves        a table and a picture of the epochs
curve_points  the points of the curves, in a file of the run's folder
tracking      the MLflow run of a training run: its points while it trains, its results at the end
mlflow_runs   MLflow's store: preparing it, writing into runs
mlflow_store  which MLflow store a command logs into, and what a run is there
"""
