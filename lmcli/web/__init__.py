"""The local page and its programming interface: runs in, answers over HTTP on 127.0.0.1 out."""
