"""Features of a video's people in, their bodies out: models, training, evaluation and prediction.

Commands, each with --help. No module imports them.

train_ray    trains a model with Ray Train
train_vae    trains the motion VAE that MEVA's coarse motion comes from
evaluate     errors of a checkpoint on a feature set
predict      bodies of the people in a video
render       pictures and films of one person's bodies
view         bodies and their video in a browser
official     a checkpoint as the official code would write it
publish      a checkpoint in half its size, to pass on
blazepose    fetches BlazePose's networks
info         what is installed, and what is where on this machine

What every room may import.

cli          a typed function becomes a command
config       a recipe: what is trained, and how
model_configs the architectures of the models, as sections of a recipe
recipes      recipes by name
peer_recipes recipes of the models that GLoT is measured against
settings     fields of a configuration: what each may be, checked wherever its values come from
cores        how many CPU cores this process may use
errors       the error for a user's mistake
file_lock    locks that end with their process
gpus         the GPUs of this machine
home         the folders that commands use by default
library_log  lines that libraries print to the terminal
location     folders and object stores; files that appear when they are complete
retries      what is done when a disk or a store fails
shipped      the networks and the body that come with the project: where they are found
code_version which version of the code runs

Rooms. Each imports only those below it.

capture/     a video to a folder of bodies
pictures/    renderer, films, sheets, figures, the viewer in a browser
motion/      one person's bodies over time: fits, smoothing, file formats
people/      video decoding, detection, tracks, boxes
training/    what a training run is, with Ray Train and MLflow
scoring/     the paper's errors, evaluation, baselines
models/      GLoT and the four models it is compared with: losses, checkpoints, inference
features/    feature sets, windows, backbones
human/       joints, rotations, cameras, crops, the body
"""
