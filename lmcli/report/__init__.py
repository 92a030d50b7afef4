"""A Result made readable, one file per format."""
