"""Benchmarks, one runnable module per question; see docs/performance.md."""
