"""No two services may share a port."""

from __future__ import annotations

from pydantic import BaseModel

from hearmeman.settings import groups


def equal_ports(settings: BaseModel) -> list[str]:
    """Find ports that two services would share: those of every variable whose name ends in _PORT."""
    seen: dict[int, str] = {}
    problems = []
    for field in (field for group in groups.ALL for field in group.model_fields):
        if field.endswith("_port"):
            name, port = field.upper(), getattr(settings, field)
            if port in seen:
                problems.append(f"{name}={port} is also {seen[port]}: give one of them another port")
            seen.setdefault(port, name)
    return problems
