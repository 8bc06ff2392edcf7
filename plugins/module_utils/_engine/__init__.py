"""Talks to engines that run; private to the collection."""
