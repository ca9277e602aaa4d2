"""Metrics of representations: of two arms (pair) and of one arm (arm); plain functions of arrays."""
