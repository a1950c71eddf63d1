"""Labelled frames: reading every format, and dividing them."""
