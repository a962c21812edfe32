"""Closed forms for class covariances that do not commute: blocks for averages over eigenvalues (docs/theory/spectrum.md, eq-blocks)."""
