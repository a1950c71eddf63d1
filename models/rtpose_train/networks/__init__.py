"""The networks, and what their output channels mean."""
