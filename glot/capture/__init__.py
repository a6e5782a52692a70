"""A video in, a folder with the bodies of all its people out: detection, features, model, fits, files, pictures.

capture_options        the options that all commands for videos share
spec                   all options of glot.predict and pipelines/predict_videos
one_by_one             several videos, one after the other
video_list             the videos of a folder, and the names of their results
studio                 the networks and the body, loaded once
capture                one video: all stages of the work
reconstruction         features and landmarks of a person to bodies
result_folder          the folder, which appears when it is complete, and its summary
result_files           motion files, and formats of other programs
result_pictures        stills and the film
feature_predictions    a feature set to SMPL parameters, without videos
"""
