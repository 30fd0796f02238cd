"""Sequence storage, synthetic tasks, file readers, batching and the data modules."""
