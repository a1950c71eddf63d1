"""The offline trainer: labelled frames in, a verified ONNX model out.

The only place that needs torch. Install it with ``pip install "rtpose[train]"``.
"""

import importlib.util

from rtpose.errors import MissingExtraError

for _package in ("torch", "lightning", "kornia", "sleap_io", "onnx", "onnxscript"):
    if importlib.util.find_spec(_package) is None:
        raise MissingExtraError(_package, "train", "training and exporting models")
