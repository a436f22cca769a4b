"""Takes the place of py-consul's own `conftest.py`, which starts Docker containers: an agent (CLIENTS_AGENT) for each test, in a
network namespace of its own, so that Consul's usual ports are free."""
import collections
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid

import pytest
import requests

Instance = collections.namedtuple("Instance", ["container", "port", "version"])
PORT = 8500


def agent(config):
    folder = tempfile.mkdtemp()
    with open(folder + "/agent.json", "w") as file:
        json.dump({"bind_addr": "127.0.0.1", "enable_script_checks": True, **config}, file)
    words = [os.environ["CLIENTS_AGENT"], "agent", "-dev", "-config-file", folder + "/agent.json"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            found = requests.get(f"http://127.0.0.1:{PORT}/v1/catalog/service/consul", timeout=2)
            if found.status_code == 403 or found.json():
                break
        except (requests.RequestException, ValueError):
            pass
        time.sleep(0.05)
    try:
        about = requests.get(f"http://127.0.0.1:{PORT}/v1/agent/self", timeout=5).json()
        yield Instance(None, PORT, about["Config"]["Version"])
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def consul_instance():
    yield from agent({})


@pytest.fixture
def acl_consul_instance():
    token = uuid.uuid4().hex
    acl = {"primary_datacenter": "dc1", "acl": {"enabled": True, "tokens": {"master": token}}}
    for instance in agent(acl):
        yield instance, token


@pytest.fixture
def consul_port(consul_instance):
    return consul_instance.port, consul_instance.version
