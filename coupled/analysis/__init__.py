"""All that happens after training: programs that read run folders and write CSV and figures."""
