"""The pod's page: the pod, live, in a browser; also its metrics for Prometheus and its notifications."""
