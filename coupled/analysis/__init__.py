"""The analysis programs: they read run folders and write CSV files, figures and reports."""
