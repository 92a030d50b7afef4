"""A run and a text -> numbers: likelihood, perplexity, memory."""
