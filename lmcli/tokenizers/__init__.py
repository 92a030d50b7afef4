"""The tokenizers, one file each: text <-> token ids."""
