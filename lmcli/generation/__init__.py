"""A run and a prompt -> text; export."""
