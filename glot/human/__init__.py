"""The human body and the camera that sees it: pictures to crops, rotations and shapes to vertices and joints.

joints       names, orders and parents of joints
rotation     6D vectors, matrices, axis-angle vectors, quaternions
camera       weak-perspective cameras of a crop and of the whole picture
crop         a box to a crop of 224 px, and 2D joints to units of the crop
crop_rules   how a backbone wants its crops: size, margin, aspect, blur
body         rotations and shapes to vertices and joints (SMPL, or the open body)
body_files   reading and checking body model files
body_points  joints of a body without its vertices
safe_pickle  reading pickle files without executing them
safe_torch   reading torch files without executing them
torch_archive  reading some tensors of torch files that hold anything else
torch_index  the pickle in such a file, without executing it
"""
