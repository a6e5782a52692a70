"""How good predictions are: a model and a feature set in, the paper's errors beside baselines out.

metric_names           the errors that are reported, their titles and units
metrics                MPJPE, PA-MPJPE, MPVPE and acceleration error of frames
track_errors           the ground truth of a track, and the errors of predictions for it
evaluation             errors on a whole feature set, by both protocols
validation             the errors of an epoch in training, computed by all workers together
baselines              mean pose, linear probe, random weights
linear_probe           a linear map from features to joints
official_evaluation    errors of another model by its own released protocol
official_protocols     how the releases of the other models cut tracks into windows
paper_rows             what the paper reports
spec                   the options of the command ``evaluate``
checkpoint_evaluation  the evaluation that the command runs
report                 its numbers as a table, JSON, CSV or Parquet
cost_table             parameters and multiply-accumulates as a table
"""
