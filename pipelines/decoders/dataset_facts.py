"""Facts about the datasets that need no file: joint orders, frame rates, the paper's window. Imports nothing heavy."""

WINDOW = 16  # frames of the paper's windows; a shorter track gives no window

# Human3.6M's 17 joints in the order of its parsed release: right leg first, although most code that calls itself "h36m"
# has the left leg first. MPI-INF-3DHP measures the same 17.
HUMAN36M17 = (
    "hip", "rhip", "rknee", "rankle", "lhip", "lknee", "lankle", "Spine (H36M)", "neck", "Head (H36M)", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip

# MPI-INF-3DHP's 28 joints, in the order of annot.mat.
MPI28 = (
    "spine3", "spine4", "spine2", "Spine (H36M)", "hip", "neck", "Head (H36M)", "headtop", "left_clavicle", "lshoulder",
    "lelbow", "lwrist", "left_hand", "right_clavicle", "rshoulder", "relbow", "rwrist", "right_hand", "lhip", "lknee",
    "lankle", "left_foot", "left_toe", "rhip", "rknee", "rankle", "right_foot", "right_toe",
)  # fmt: skip

# InstaVariety's 25 joints: the 14 of image/xys, then the 5 of image/face_pts, then the 6 of image/toe_pts.
INSTA25 = (
    "OP RHeel", "OP RKnee", "OP RHip", "OP LHip", "OP LKnee", "OP LHeel", "OP RWrist", "OP RElbow", "OP RShoulder",
    "OP LShoulder", "OP LElbow", "OP LWrist", "OP Neck", "headtop",
    "OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar",
    "OP LBigToe", "OP RBigToe", "OP LSmallToe", "OP RSmallToe", "OP LAnkle", "OP RAnkle",
)  # fmt: skip
STORED_CROP_SCALE = 1.0  # InstaVariety stores crops, which are used as they are

# Penn Action's 13 joints, in the order of its label files: left before right. The reference stores its own files in
# another order but reads them in this order, so it takes ankles for heads.
PENN13 = (
    "headtop", "lshoulder", "rshoulder", "lelbow", "relbow", "lwrist", "rwrist", "lhip", "rhip", "lknee", "rknee",
    "lankle", "rankle",
)  # fmt: skip

# (subject, sequence) of MPI-INF-3DHP's training videos that were filmed at 50 frames per second.
MPI_INF_3DHP_50_FPS = {(1, 2), (3, 1), (3, 2), (5, 1), (5, 2)}


def mpi_inf_3dhp_fps(subject: int, sequence: int) -> float:
    """Frames per second of the training videos of a subject's sequence in MPI-INF-3DHP."""
    return 50.0 if (subject, sequence) in MPI_INF_3DHP_50_FPS else 25.0
