"""Networks in pure torch: preprocess, stem, cells, pooling, head."""
