"""Built-in conditions on poses, one file per kind."""
