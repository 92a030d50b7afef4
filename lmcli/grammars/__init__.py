"""Texts made by rule, one file each, with known answers and a known optimum."""
