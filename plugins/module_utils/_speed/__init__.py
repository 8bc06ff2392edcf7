"""How fast vLLM runs a model on a GPU: data of GPUs and a roofline; pure, private to the collection."""
