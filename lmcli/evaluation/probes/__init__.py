"""Tests of memory, one file each; see `base.Probe`."""
