"""Linear probes of layers, and tap search."""
