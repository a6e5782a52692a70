"""Frozen networks: crops of people in, a feature vector for each out.

names            their names and options, for help texts
backbone         a name to a backbone with its weights
extractor        a backbone to a function from crops to features
resnet50         the ResNet-50 trunk and the files of its weights
onnx_network     the ResNet-50 for onnxruntime, float32 or int8
blazepose        BlazePose: people in pictures, landmarks and features of crops
blazepose_files  fetching BlazePose's networks
"""
