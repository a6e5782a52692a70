"""Files of other projects' releases in, models out, and the reverse.

official_files  checkpoints of GLoT's release
peer_files      checkpoints of the releases of TCMR, MPS-Net, VIBE and MEVA
spin_files      SPIN's checkpoint, whose regressor training may start from
"""
