"""Networks and losses in plain PyTorch."""
