"""The built-in cameras. Each file is one; `synthetic.py` is a good one to copy."""
