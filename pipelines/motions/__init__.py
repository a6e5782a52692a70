"""Motion capture files in, clips of SMPL poses at 30 frames a second out, with variations that nobody recorded.

spec             options of make_motions
motion_clip      the class MotionClip; clips resampled, mirrored, turned and joined
mocap            the shipped clips, BVH files and AMASS files to MotionClips
bvh_reader       one BVH file to SMPL poses
deepmimic        the clips of a pybullet wheel to the shipped file
random_motion    random chains of clips, random poses
variety          motions with limbs and joints varied beyond what was recorded
"""
