"""Turns wishes and hosts into the fleet plan; pure, private to the collection."""
