"""Sweeps: train and analyse one run for each point of a grid."""
