"""A space of recipe fields in; a training run for each point of it, side by side in MLflow and beside the paper, out.

search        the command that runs a sweep
report        the command that writes the pages of sweeps in MLflow
spec          the options of search and report
spaces        which fields a sweep varies: the paper's tables, and spaces of users
sweep         a sweep from its spec to its results: opening it, concluding it
runner        running a sweep's trials with Ray Tune
shares        how many trials a cluster holds at a time, and each trial's cores
trial         what Ray Tune runs for a trial
trial_queue   hands trials to Ray Tune and records how they end
pruning       stops trials that are worse than others at the same epoch
points        which points a sweep tries, kept in an Optuna study
outcomes      trials and how they ended, in their folders
registry      a sweep in MLflow: written and read
results       tables and the page of a sweep
plots         the picture of a sweep
"""

# This must be imported before ray: it sets the environment variables that ray reads when it is imported.
import glot.training.cluster.session  # noqa: F401
