"""What leaves the training stack. `onnx_classifier` and `streaming` need numpy and onnxruntime only."""
