"""Reads what the operator wants and says what is wrong with it; private to the collection."""
