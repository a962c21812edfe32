"""Closed forms for class covariances that do not commute: blocks in place of averages over eigenvalues (docs/theory/spectrum.md)."""
