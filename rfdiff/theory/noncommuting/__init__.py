"""Closed forms for class covariances that do not commute: blocks in place of averages over eigenvalues (`equations`, section 4)."""
