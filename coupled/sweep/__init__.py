"""Sweeps: train and measure a run for each point of a grid."""
