"""Reads a host: GPUs, driver, machine, files of models; private to the collection, runs on managed hosts."""
