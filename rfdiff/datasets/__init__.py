"""Labelled data sets of one's own, read from the formats they come in and prepared for theory and simulation."""

from rfdiff.datasets.loading import load_samples

__all__ = ["load_samples"]
