"""A dataset's files in; units of work, clips of people with their labels, and crops of their pictures out.

clips                  units, clips and decoders: the contract with extraction
source_entries         sizes and times of files and folders, by which changes are noticed
unit_cuts              long sources cut into ranges
registry               the name of a dataset to its splits and its decoder
frames                 crops of people; each picture is read once for all of them
box_variants           boxes of single frames, boxes with a detector's errors, boxes with the reference's faults
dataset_facts          joint orders and frame rates of datasets, without heavy imports

threedpw               3DPW
human36m               Human3.6M in its parsed JSON release
human36m_files         the annotation files of Human3.6M
mpi_inf_3dhp           MPI-INF-3DHP
mpi_inf_3dhp_videos    the folders, videos and pictures of MPI-INF-3DHP
mpi_inf_3dhp_labels    the annotation files of MPI-INF-3DHP
insta_variety          InstaVariety
tfrecord               TFRecord files, for InstaVariety
penn_action            Penn Action
posetrack              PoseTrack 2018
video_dataset          videos of any kind, without labels
video_files            the videos in a folder or an object store, listed
video_boxes            the boxes of videos, for their plan
"""
