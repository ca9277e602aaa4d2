"""Settings: the schema, how they are read and resolved, what they name, and errors of one line."""
