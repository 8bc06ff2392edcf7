"""Every alert before the real Prometheus' promtool: fires, does not, without traffic, with its targets gone."""
