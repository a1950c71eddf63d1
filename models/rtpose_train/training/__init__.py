"""From labelled frames and settings to weights."""
