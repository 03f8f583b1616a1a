"""The verbs of the command line, one module each. They may import everything; nothing imports them but `__main__`."""

VERBS = {
    "demo": "people in photos, folders and videos to 3D bodies",
    "eval": "score weights on a data set by a published protocol",
    "train": "train CLIFF as a configuration says",
    "annotate": "SMPL annotations for people of whom only 2D keypoints are known",
    "prepare": "turn a data set as it is downloaded into an annotation file",
    "convert": "weights between PyTorch and MindSpore",
    "export": "a checkpoint to MindIR, ONNX or AIR",
}
