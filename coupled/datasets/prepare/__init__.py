"""Archives and parquet files made into image folders."""
