"""Instances that span hosts, on two hosts with one pretended GPU each and a front door: what each fault does to them.

``python -m pytest tests/cluster`` is what CI runs; ``make faults`` runs every fault on real vLLM as well.
"""
