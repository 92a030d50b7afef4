"""The recurrences of lmcli/models once more, one token at a time in NumPy: a file each."""
