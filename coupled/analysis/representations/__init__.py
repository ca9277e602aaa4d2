"""Embeddings of a run's images and scores of them."""
