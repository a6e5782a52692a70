"""Predicted bodies of a person in; the person's Motion through a video, fitted, smoothed and written to files, out.

person_motion  Motion: one person's body through a video
camera_fit     cameras that put bodies on 2D landmarks
pose_fit       poses whose limbs lie on 2D landmarks
smoothing      the one-euro filter; interpolation of missing frames
motion_files   .npz and .parquet, written and read
peers_pkl      the .pkl of VIBE's, TCMR's and GLoT's demos
bvh            BVH, for animation programs
gltf           glTF, for Blender, browsers and game engines
"""
