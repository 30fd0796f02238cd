"""The LightningModule and what watches a run."""
