"""What differs by release of vLLM, as data; private to the collection, imports nothing of it."""
