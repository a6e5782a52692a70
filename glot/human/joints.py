"""Names, orders and parents of joints: SMPL's 24, SPIN's 49, the 14 common ones. Orders are matched by name."""

SMPL_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINTS = len(SMPL_JOINTS)
# The joint that each becomes in a mirror.
SMPL_MIRROR = tuple(
    SMPL_JOINTS.index(name.replace("left", "\0").replace("right", "left").replace("\0", "right"))
    for name in SMPL_JOINTS
)
BETAS = 10  # numbers that describe a person's shape

# The 21 joints that are single vertices in smplx, in its order; they follow the 24 SMPL joints.
VERTEX_JOINTS = (
    "nose", "reye", "leye", "rear", "lear", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel",
    "lthumb", "lindex", "lmiddle", "lring", "lpinky", "rthumb", "rindex", "rmiddle", "rring", "rpinky",
)  # fmt: skip
# Vertex ids of VERTEX_JOINTS on SMPL's 6,890-vertex mesh (smplx's SMPL-H table).
SMPL_VERTEX_JOINT_IDS = (
    332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787,
    2746, 2319, 2445, 2556, 2673, 6191, 5782, 5905, 6016, 6133,
)  # fmt: skip

# Rows of J_regressor_extra; they follow the vertex joints, so that 24 + 21 + 9 = 54.
EXTRA_JOINTS = (
    "rhip", "lhip", "neck", "headtop", "hip", "thorax", "Spine (H36M)", "Jaw (H36M)", "Head (H36M)",
)  # fmt: skip

# SPIN's 49 joints: 0-24 is OpenPose's order, 25-48 the ground-truth half.
SPIN49 = (
    "OP Nose", "OP Neck", "OP RShoulder", "OP RElbow", "OP RWrist", "OP LShoulder", "OP LElbow", "OP LWrist",
    "OP MidHip", "OP RHip", "OP RKnee", "OP RAnkle", "OP LHip", "OP LKnee", "OP LAnkle", "OP REye", "OP LEye",
    "OP REar", "OP LEar", "OP LBigToe", "OP LSmallToe", "OP LHeel", "OP RBigToe", "OP RSmallToe", "OP RHeel",
    "rankle", "rknee", "rhip", "lhip", "lknee", "lankle", "rwrist", "relbow", "rshoulder", "lshoulder", "lelbow",
    "lwrist", "neck", "headtop", "hip", "thorax", "Spine (H36M)", "Jaw (H36M)", "Head (H36M)", "nose", "leye", "reye",
    "lear", "rear",
)  # fmt: skip
# For each of the 49 joints, its index among the 54: 24 SMPL joints, 21 single vertices, 9 regressed joints.
SPIN49_FROM_54 = (
    24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 8, 5, 45, 46, 4, 7,
    21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27,
)  # fmt: skip
# The 14 joints that all evaluation sets have: numbers 25 to 38 of the 49. The 3D loss uses the same joints.
COMMON14 = (
    "rankle", "rknee", "rhip", "lhip", "lknee", "lankle", "rwrist", "relbow", "rshoulder", "lshoulder", "lelbow",
    "lwrist", "neck", "headtop",
)  # fmt: skip
COMMON14_IN_SPIN49 = slice(25, 39)
R_HIP, L_HIP = COMMON14.index("rhip"), COMMON14.index("lhip")  # their mean is the pelvis of COMMON14

# Rows of J_regressor_h36m that give COMMON14, in its order.
H36M_TO_COMMON14 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)

# 3DPW's poses2d: 18 joints in OpenPose-COCO order, right side first. A joint of the 49 has the same name here.
THREEDPW_2D = (
    "nose", "thorax", "rshoulder", "relbow", "rwrist", "lshoulder", "lelbow", "lwrist", "rhip", "rknee", "rankle",
    "lhip", "lknee", "lankle", "reye", "leye", "rear", "lear",
)  # fmt: skip

# Limbs, for drawing keypoints.
COMMON14_BONES = (
    ("rankle", "rknee"), ("rknee", "rhip"), ("lankle", "lknee"), ("lknee", "lhip"), ("rhip", "lhip"),
    ("rwrist", "relbow"), ("relbow", "rshoulder"), ("lwrist", "lelbow"), ("lelbow", "lshoulder"),
    ("rshoulder", "lshoulder"), ("rhip", "rshoulder"), ("lhip", "lshoulder"), ("neck", "headtop"),
)  # fmt: skip


def match(source: tuple[str, ...], target: tuple[str, ...]) -> list[tuple[int, int]]:
    """Pairs (index in source, index in target) of equal names. Names that only one of the two has are left out."""
    return [(i, target.index(name)) for i, name in enumerate(source) if name in target]
