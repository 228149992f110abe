"""Configurations of training on photographs, as TOML files."""
