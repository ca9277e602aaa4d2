"""Unpack archives and parquet files into image folders."""
