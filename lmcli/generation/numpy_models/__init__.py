"""The models in NumPy, one token at a time, for sampling without torch: one file each."""
