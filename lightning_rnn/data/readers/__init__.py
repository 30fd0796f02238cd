"""Readers of sequence files, one module per format."""
