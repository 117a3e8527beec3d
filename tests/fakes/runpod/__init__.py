"""RunPod's REST API v2 on loopback, after its own OpenAPI file: every request and answer is validated, faults on demand.

It is also the proxy to the pods' ports, below /proxy/ID/PORT/.
"""

from fakes.runpod.account import KEY
from fakes.runpod.server import RunPod

__all__ = ["KEY", "RunPod"]
