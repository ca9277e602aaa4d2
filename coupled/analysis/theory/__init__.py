"""Bounds and losses of the papers, computed on what was measured."""
