"""What stands at the pod's ports: the gate that asks for ACCESS_TOKEN, the login page, health and status."""
