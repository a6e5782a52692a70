"""Frozen networks: crops of people in, a feature vector for each out.

backbone_kinds      what there is and what each needs, ours and those of other packages
backbone            what a backbone is, and a choice of one to the backbone with its weights
listing             what there is, for people
extractor           a backbone to a function from crops to features
resnet50            the ResNet-50 trunk and the files of its weights
resnet50_backbone   the ResNet-50 as a backbone, in three precisions
onnx_backbone       any exported network as a backbone
onnx_settings       the YAML file beside an exported network
onnx_pooling        an output of an exported network to a feature of each crop
onnx_model_file     the files of an exported network, and their hash
onnx_network        the ResNet-50 for onnxruntime, float32 or int8
hmr2                HMR2.0 as a backbone
hmr2_crops          how three projects crop people for it
hmr2_network        HMR2.0's layers
hmr2_file           a checkpoint of HMR2.0 to the network
weights_hash        a hash of the tensors of a network
blazepose           BlazePose: people in pictures, landmarks and features of crops
blazepose_features  BlazePose's landmark network as a backbone
blazepose_files     fetching BlazePose's networks
"""
