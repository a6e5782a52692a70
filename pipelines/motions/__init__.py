"""Motion capture files in, clips of SMPL poses at 30 frames a second out, with variations that nobody recorded.

spec             options of make_motions
motion_clip      the class MotionClip; clips resampled, mirrored, turned and joined
mocap            the shipped clips, CMU's ASF/AMC files, BVH files and AMASS files to MotionClips
subjects         who moves in a clip, and the clip's split: by its name, or by a table
bvh_parser       a BVH file to a skeleton and the values of its frames
bvh_reader       one BVH file to SMPL poses
asf_amc_files    CMU's skeleton and motion files to bones and their angles
cmu_reader       one pair of such files to SMPL poses
cmu_bones        a figure with CMU's bones to SMPL poses
world_rotations  joints' rotations in the world to SMPL poses
set_spec         options of make_motion_set
set_writing      clips to a set of real motions, which training reads
deepmimic        the clips of a pybullet wheel to the shipped file
random_motion    random chains of clips, random poses
variety          motions with limbs and joints varied beyond what was recorded
"""
