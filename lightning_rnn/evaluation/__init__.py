"""Metrics, calibration, gradient flow and plots."""
