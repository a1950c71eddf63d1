"""How far off an exported model is, in figures, tables and pictures."""
