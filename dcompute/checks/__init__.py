"""Checks of rows and of inputs: how they are declared, how they travel, and what they say of a table."""
