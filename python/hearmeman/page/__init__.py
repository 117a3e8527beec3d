"""The pod's page: what a person sees of the pod in a browser, live, and what Prometheus and a webhook are given of it."""
