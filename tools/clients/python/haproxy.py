#!/usr/bin/env python3
"""HAProxy fills a backend from SRV records: the agent's DNS on port 8600, its HTTP on 8500. Servers come, go, and go ill; what
HAProxy has is read from its socket."""
import json
import socket
import subprocess
import tempfile
import time
import urllib.request

CONFIG = """
global
  stats socket {folder}/socket level admin
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
resolvers agent
  nameserver dns 127.0.0.1:8600
  accepted_payload_size 8192
  resolve_retries 3
  timeout resolve 100ms
  timeout retry 200ms
  hold valid 100ms
  hold obsolete 100ms
frontend www
  bind 127.0.0.1:8080
  default_backend web
backend web
  server-template web 1-8 _web._tcp.service.consul resolvers agent resolve-prefer ipv4 check
"""
counts = {True: 0, False: 0}


def put(path, body=None):
    data = json.dumps(body).encode() if body is not None else b""
    urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8500" + path, data, method="PUT"), timeout=10).read()


def register(number):
    check = {"TTL": "60s", "Status": "passing", "CheckID": f"web-{number}"}
    put("/v1/agent/service/register", {"Name": "web", "ID": f"web-{number}", "Address": f"127.0.0.{number}", "Port": 8000 + number, "Check": check})


def servers(folder):
    """(address, port, weight) of those that are not in maintenance for want of an answer."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(folder + "/socket")
        asked.sendall(b"show servers state web\n")
        rows = asked.makefile().read().splitlines()[2:]
    fields = [row.split() for row in rows if row.strip()]
    # srv_addr, srv_admin_state (0x20: no answer from DNS), srv_port.
    return {(row[4], int(row[18])) for row in fields if not int(row[6]) & 0x20 and row[4] != "-"}


def step(name, wanted, look, limit=20):
    end, got = time.monotonic() + limit, None
    while time.monotonic() < end:
        try:
            if (got := look()) == wanted:
                break
        except OSError as error:
            got = error
        time.sleep(0.05)
    counts[got == wanted] += 1
    print(f"ok {name}" if got == wanted else f"FAIL {name} -- {got}, not {wanted}", flush=True)


with tempfile.TemporaryDirectory() as folder:
    with open(folder + "/h.cfg", "w") as file:
        file.write(CONFIG.format(folder=folder))
    for number in (1, 2, 3):
        register(number)
    process = subprocess.Popen(["haproxy", "-db", "-f", folder + "/h.cfg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        at = lambda *numbers: {(f"127.0.0.{number}", 8000 + number) for number in numbers}
        step("three servers", at(1, 2, 3), lambda: servers(folder))
        put("/v1/agent/check/fail/web-2")
        step("one is ill", at(1, 3), lambda: servers(folder))
        put("/v1/agent/service/deregister/web-3")
        step("one is gone", at(1), lambda: servers(folder))
        put("/v1/agent/check/pass/web-2")
        for number in (4, 5, 6, 7, 8):
            register(number)
        step("seven servers", at(1, 2, 4, 5, 6, 7, 8), lambda: servers(folder))
    finally:
        process.kill()
        process.wait()
print(f"{counts[True]} passed, {counts[False]} failed")
