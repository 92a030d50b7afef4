"""The architectures, one file each: token ids + state -> logits + state."""
