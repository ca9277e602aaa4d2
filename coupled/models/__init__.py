"""Networks, their parts, their optimizer and the memory they need."""
