"""What several architectures share: recurrent loops, the output layer, local attention."""
