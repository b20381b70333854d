"""The primitives: thin faces on the engine, one concept a file."""
