"""What temporal models are made of: features or tokens in, features, tokens or estimates out.

blocks                transformer blocks and attention
global_branch         GLoT: the masked encoder and decoder, the iterative regressor
local_branch          GLoT: the correction of the middle frames, the kinematic regressor (HSCR)
spin_regressor        SPIN's iterative regressor
frame_attention       TCMR's attention, which merges frames (MPS-Net has it, too)
motion_discriminator  tells real motions from predicted ones (VIBE, MPS-Net)
motion_vae            MEVA's variational autoencoder of motions
"""
