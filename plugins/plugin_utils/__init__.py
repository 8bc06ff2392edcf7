"""What only the controller needs; private to the collection."""
