#!/usr/bin/env python3
"""Prometheus finds its targets in an agent: `prometheus.py PATH-TO-PROMETHEUS`, the agent on port 8500. All targets and labels are
compared with what was registered; then services come and go, and last the agent's own metrics are scraped."""
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

AGENT, LISTEN = "127.0.0.1:8500", "127.0.0.1:9090"
CONFIG = f"""
global: {{scrape_interval: 1s}}
scrape_configs:
- job_name: all
  consul_sd_configs: [{{server: "{AGENT}", refresh_interval: 1s}}]
- job_name: tagged
  consul_sd_configs: [{{server: "{AGENT}", services: [web], tags: [prod], allow_stale: false, refresh_interval: 1s}}]
- job_name: agent
  metrics_path: /v1/agent/metrics
  params: {{format: [prometheus]}}
  static_configs: [{{targets: ["{AGENT}"]}}]
"""
counts = {True: 0, False: 0}


def put(path, body=None):
    data = json.dumps(body).encode() if body is not None else b""
    urllib.request.urlopen(urllib.request.Request(f"http://{AGENT}{path}", data, method="PUT"), timeout=10).read()


def targets(job):
    with urllib.request.urlopen(f"http://{LISTEN}/api/v1/targets", timeout=10) as answer:
        found = json.load(answer)["data"]["activeTargets"]
    return {one["discoveredLabels"]["__address__"]: one for one in found if one["labels"]["job"] == job}


def step(name, wanted, look, limit=20):
    end, got = time.monotonic() + limit, None
    while time.monotonic() < end:
        try:
            if (got := look()) == wanted:
                break
        except OSError as error:
            got = error
        time.sleep(0.1)
    counts[got == wanted] += 1
    print(f"ok {name}" if got == wanted else f"FAIL {name} -- {got}, not {wanted}", flush=True)


def labels(address):
    found = targets("all").get(address, {}).get("discoveredLabels", {})
    wanted = ("service", "service_id", "service_metadata_team", "service_address", "health", "tags", "dc", "service_port")
    return {name: found.get("__meta_consul_" + name) for name in wanted}


with tempfile.TemporaryDirectory() as folder:
    with open(folder + "/p.yml", "w") as file:
        file.write(CONFIG)
    put("/v1/agent/service/register", {"Name": "web", "ID": "web-1", "Port": 9101, "Tags": ["prod", "v1"], "Meta": {"team": "a"}})
    put("/v1/agent/service/register", {"Name": "web", "ID": "web-2", "Port": 9102, "Address": "127.0.0.2", "Tags": ["v2"]})
    put("/v1/agent/service/register", {"Name": "db", "Port": 9103})
    words = [sys.argv[1], "--config.file=p.yml", "--storage.tsdb.path=d", "--web.listen-address=" + LISTEN]
    log = open(folder + "/log", "w")
    process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        first = {"127.0.0.1:8300", "127.0.0.1:9101", "127.0.0.2:9102", "127.0.0.1:9103"}
        step("all targets", first, lambda: set(targets("all")))
        step("those with a tag", {"127.0.0.1:9101"}, lambda: set(targets("tagged")))
        known = {"service": "web", "service_id": "web-1", "service_metadata_team": "a", "service_address": None, "health": "passing",
                 "tags": ",prod,v1,", "dc": "dc1", "service_port": "9101"}
        step("labels", known, lambda: labels("127.0.0.1:9101"))
        put("/v1/agent/service/register", {"Name": "web", "ID": "web-3", "Port": 9104, "Tags": ["prod"]})
        put("/v1/agent/service/deregister/web-1")
        put("/v1/agent/service/register", {"Name": "cache", "Port": 9105})
        put("/v1/agent/service/maintenance/db?enable=true&reason=x")
        second = {"127.0.0.1:8300", "127.0.0.2:9102", "127.0.0.1:9103", "127.0.0.1:9104", "127.0.0.1:9105"}
        step("all targets after changes", second, lambda: set(targets("all")))
        step("those with a tag after changes", {"127.0.0.1:9104"}, lambda: set(targets("tagged")))
        step("maintenance", "maintenance", lambda: labels("127.0.0.1:9103")["health"])
        step("the agent's own metrics", "up", lambda: targets("agent")[AGENT]["health"])
    finally:
        process.kill()
        process.wait()
        log.close()
print(f"{counts[True]} passed, {counts[False]} failed")
