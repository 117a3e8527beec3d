"""Renders nginx's configuration: the gate that lets through what the door says yes to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hearmeman.door.ports import Door

CHECK, REFUSED, LOGIN, DOWN = "/_door/check", "/_door/refused", "/_door/login", "/_door/down"
"""Addresses at the door's own server: may it pass, the answer to a refusal, the login form, the service is not up."""

_AWAY = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
    '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
    "<title>The gate is starting</title></head><body><h1>The gate is starting</h1>"
    "<p>This page tries again by itself, every two seconds.</p></body></html>"
)
"""What a browser is shown while the doorman, which makes the other pages, does not answer."""

_HEAD = """# Written by hearmeman boot.
daemon off;
{user}
worker_processes 2;
pid {run}/gate/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  server_tokens off;
  default_type application/octet-stream;
  client_body_temp_path {run}/gate/body;
  proxy_temp_path {run}/gate/proxy;
  fastcgi_temp_path {run}/gate/fastcgi;
  uwsgi_temp_path {run}/gate/uwsgi;
  scgi_temp_path {run}/gate/scgi;

  # Uploads and streams pass through as they come: nothing is kept, nothing is cut short.
  client_max_body_size 0;
  client_body_timeout 300s;
  client_body_buffer_size 512k;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_buffer_size 256k;
  proxy_buffers 8 256k;
  proxy_busy_buffers_size 512k;
  proxy_http_version 1.1;
  proxy_connect_timeout 5s;
  proxy_read_timeout 24h;
  proxy_send_timeout 1h;
  tcp_nodelay on;

  # Who sends half a header is not waited for, and no port can take the connections of all.
  client_header_timeout 10s;
  reset_timedout_connection on;
  limit_conn_zone $server_port zone=port:1m;
  limit_conn_status 429;

  # HTTP/1.0 needs no Host, and what stands behind speaks 1.1.
  map $http_host $asked_host {{ default $http_host; "" localhost; }}
  map $http_upgrade $upgrade_to {{ default ""; ~*^websocket$ websocket; }}
  map $upgrade_to $connection_kind {{ default ""; websocket upgrade; }}

  # Who asks while the doorman does not answer: a program, a browser, or a browser behind Cloudflare, which puts a page
  # of its own in the place of a 5xx answer's.
  map "$http_cf_ray $http_accept" $asks {{ default program; "~^ .*text/html" browser; "~^[^ ]+ .*text/html" proxied; }}

  upstream door {{ server unix:{run}/gate/door.sock; keepalive 64; }}
"""

_SERVER = """
  server {{
{listens}
    auth_request {check};
    auth_request_set $clean_cookie $upstream_http_x_clean_cookie;
    error_page 401 403 = {refused};
    error_page 502 504 = {down};
    # What nginx makes of a doorman that does not answer, as while it restarts.
    error_page 500 = /_door/away/$asks;
    location /_door/away/ {{
      internal;
      auth_request off;
      add_header Retry-After 2 always;
      add_header Cache-Control no-store always;
      add_header X-Hearmeman-State starting always;
      location = /_door/away/program {{
        internal;
        default_type application/json;
        return 503 '{{"error": "the gate is starting: try again in a moment"}}\n';
      }}
      location = /_door/away/browser {{ internal; default_type text/html; return 503 '{away}'; }}
      location = /_door/away/proxied {{ internal; default_type text/html; return 200 '{away}'; }}
    }}
    limit_conn port 1024;

    proxy_set_header Host $asked_host;
    proxy_set_header Upgrade $upgrade_to;
    proxy_set_header Connection $connection_kind;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    # The service behind never sees what opened the gate.
    proxy_set_header Authorization "";
    proxy_set_header Cookie $clean_cookie;

    location / {{ proxy_pass http://{upstream}; }}
{open}    location = {check} {{
      internal;
      auth_request off;
      proxy_read_timeout 30s;
      proxy_pass http://door;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Host $asked_host;
      proxy_set_header Connection "";
      proxy_set_header X-Method $request_method;
      proxy_set_header X-Upgrade $upgrade_to;
    }}
    location = {refused} {{
      internal;
      auth_request off;
      proxy_read_timeout 30s;
      proxy_pass http://door;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Host $asked_host;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
      proxy_set_header X-Uri $request_uri;
    }}
    location = {down} {{
      internal;
      auth_request off;
      proxy_read_timeout 30s;
      proxy_pass http://door;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Connection "";
      proxy_set_header X-Service "{service}";
    }}
    location = {login} {{
      auth_request off;
      client_max_body_size 8k;
      proxy_request_buffering on;
      proxy_read_timeout 30s;
      proxy_pass http://door;
      proxy_set_header Host $asked_host;
      proxy_set_header Connection "";
    }}
  }}
"""

_OPEN = """    # That the pod lives is no secret, and who watches it needs no token.
    location = /healthz {
      auth_request off;
      proxy_pass http://door;
      proxy_set_header Host $asked_host;
      proxy_set_header Connection "";
    }
"""


def gate_conf(doors: Iterable[Door], run_dir: Path, as_root: bool = False) -> str:
    """Render the configuration for the doors that the gate guards; without one it is a file that serves nothing.

    `as_root` is for containers that have no other user: nginx would else change to one.
    """
    guarded = [door for door in doors if door.guard == "gate"]
    text = _HEAD.format(run=run_dir, user="user root root;" if as_root else "")
    for door in guarded:
        upstream = door.service.lower().replace(" ", "-")
        if door.inner:
            text += f"  upstream {upstream} {{ server 127.0.0.1:{door.inner}; keepalive 16; }}\n"
        listens = "\n".join(f"    listen {_address(host, door.port)};" for host in door.hosts)
        text += _SERVER.format(
            listens=listens,
            check=CHECK,
            refused=REFUSED,
            down=DOWN,
            login=LOGIN,
            upstream=upstream if door.inner else "door",
            open="" if door.inner else _OPEN,
            service=door.service,
            away=_AWAY,
        )
    return text + "}\n"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
