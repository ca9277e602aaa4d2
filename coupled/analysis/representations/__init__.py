"""Embeddings of a run's images, and scores computed from them."""
