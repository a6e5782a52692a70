"""Files of other projects' releases in, models out, and the reverse.

published_files  checkpoints of any release, read and written
official_files   the tensors of GLoT's release
peer_files       the tensors of the releases of TCMR, MPS-Net, VIBE and MEVA
release_layout   what the files of all releases share
spin_files       SPIN's checkpoint, whose regressor training may start from
"""
