"""Text -> corpus -> dataset -> batches."""
