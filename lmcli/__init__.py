"""Train small language models on your own text and measure how far back each one remembers."""

__version__ = "0.1.0"
