"""How much memory an engine needs, and what shapes it runs in; pure, private to the collection."""
