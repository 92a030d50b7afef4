"""A dataset and settings -> a run."""
