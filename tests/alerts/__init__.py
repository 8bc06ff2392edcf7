"""Alerts provoked for real, on real systemd, NGINX, Prometheus and Alertmanager, and told to a webhook.

The hosts are the tests' own, and gone afterwards. The engine is the stand-in, because what is tried are alerts: it
fails as vLLM does, and tells so by vLLM's metrics.
"""
