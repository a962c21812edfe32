"""Training the networks step by step, with any optax optimiser, instead of solving the flow (docs/theory/simulation.md)."""
