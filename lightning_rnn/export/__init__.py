"""Exported models. `onnx_classifier` and `streaming` need only numpy and onnxruntime."""
