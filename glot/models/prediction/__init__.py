"""Models of fixed weights: the features of a track in, the bodies of its frames out.

frozen            layers and blocks of fixed weights
sliding           GLoT along a track: neighbouring windows share what they have in common
sliding_tcmr      TCMR along a track
sliding_mps_net   MPS-Net along a track
track_predictors  how the track of each model is cut into windows and put together again
"""
