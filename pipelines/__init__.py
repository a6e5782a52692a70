"""Videos, datasets and motion capture in, feature sets out. The jobs run on Ray Data.

Commands, each with --help. No other module imports them.

extract_features    a dataset's pictures to a feature set
import_features     other projects' feature files to a feature set
check_features      whether a feature set is whole and plausible
predict_videos      bodies of the people in a folder of videos
make_sample         renders the open sample dataset
make_motion_set     motion capture files to a set of real motions
make_motions        derives the shipped motions
make_body           derives the open body
pretrain_backbone   trains the open ResNet-50 on renders
demo                the whole pipeline on open data, as make demo runs it

Rooms. Each imports only those below it, and glot.

pretraining/    renders in, weights of a ResNet-50 out
scenes/         people, cameras, light and clothes; the sample dataset
motions/        motion capture files and variations of them
open_body/      how the open body is derived
checks/         rules, summaries and sheets of feature sets
imports/        feature files of other projects
extraction/     the extraction job, and bodies of many videos
sets/           feature sets while they are made: plan, outcomes, parts
jobs/           the job runner: pools of workers, and the job's books
decoders/       readers of datasets, one module each
"""
