"""Real-time animal pose for closed-loop experiments."""
