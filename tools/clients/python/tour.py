#!/usr/bin/env python3
"""The Python client (`consul`, of python-consul, python-consul2 or py-consul), the lock recipe on it, and the one that PyPI
has as `consulock`, against a running agent: `tour.py PORT`. Prints a line for each step and ends with their counts."""
import base64
import sys
import threading
import time

import consul

port = int(sys.argv[1])
counts = {True: 0, False: 0}


def client():
    return consul.Consul(host="127.0.0.1", port=port)


def step(name):
    def run(body):
        try:
            body()
            said = True
            print("ok", name)
        except Exception as error:  # a step that fails must not end the tour
            said = False
            print(f"FAIL {name} -- {type(error).__name__}: {error}")
        counts[said] += 1
    return run


def same(got, wanted):
    assert got == wanted, f"{got!r}, not {wanted!r}"


def soon(look, limit=10):
    end = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)
    return found


c = client()


@step("kv: put, get, flags, bytes, missing, recurse, keys, separator")
def _():
    assert c.kv.put("py/a", b"\x00\xff", flags=5)
    index, row = c.kv.get("py/a")
    same((row["Value"], row["Flags"], row["ModifyIndex"] == int(index)), (b"\x00\xff", 5, True))
    same(c.kv.get("py/none")[1], None)
    assert c.kv.put("py/b/c", None) and c.kv.put("py/ü", "ä")
    same([row["Key"] for row in c.kv.get("py/", recurse=True)[1]], ["py/a", "py/b/c", "py/ü"])
    same(c.kv.get("py/", keys=True, separator="/")[1], ["py/a", "py/b/", "py/ü"])
    same(c.kv.get("py/ü")[1]["Value"].decode(), "ä")
    same(c.kv.get("py/b/c")[1]["Value"], None)


@step("kv: cas, deletes")
def _():
    index = c.kv.get("py/a")[1]["ModifyIndex"]
    same([c.kv.put("py/a", "1", cas=index), c.kv.put("py/a", "2", cas=index)], [True, False])
    same([c.kv.delete("py/a", cas=index), c.kv.put("py/new", "", cas=0)], [False, True])
    same([c.kv.delete("py/", recurse=True), c.kv.get("py/", recurse=True)[1]], [True, None])


@step("kv: a blocking query wakes; a wait ends")
def _():
    c.kv.put("py/w", "1")
    index, _row = c.kv.get("py/w")
    woken = []
    waiting = threading.Thread(target=lambda: woken.append(client().kv.get("py/w", index=index, wait="20s")))
    waiting.start()
    time.sleep(0.1)
    same(woken, [])
    c.kv.put("py/w", "2")
    waiting.join(5)
    same(woken[0][1]["Value"], b"2")
    begun = time.monotonic()
    same(c.kv.get("py/w", index=woken[0][0], wait="300ms")[0], woken[0][0])
    assert 0.25 < time.monotonic() - begun < 3


@step("consistency: default, consistent, stale")
def _():
    for mode in ("default", "consistent", "stale"):
        same(consul.Consul(port=port, consistency=mode).kv.get("py/w")[1]["Value"], b"2")


@step("txn")
def _():
    value = base64.b64encode(b"x").decode()
    done = c.txn.put([{"KV": {"Verb": "set", "Key": "py/t", "Value": value}}, {"KV": {"Verb": "get", "Key": "py/t"}}])
    same((done["Results"][1]["KV"]["Value"], done["Errors"]), (value, None))


@step("session: create, info, list, node, renew, destroy")
def _():
    session = c.session.create(name="py", ttl=10, behavior="delete", lock_delay=0)
    node = c.agent.self()["Config"]["NodeName"]
    entry = c.session.info(session)[1]
    same((entry["Name"], entry["TTL"], entry["Behavior"], entry["LockDelay"]), ("py", "10s", "delete", 0))
    assert session in [row["ID"] for row in c.session.list()[1]]
    assert session in [row["ID"] for row in c.session.node(node)[1]]
    same(c.session.renew(session)["ID"], session)
    assert c.kv.put("py/held", "", acquire=session)
    same((c.session.destroy(session), c.session.info(session)[1], c.kv.get("py/held")[1]), (True, None, None))
    try:
        c.session.renew(session)
    except consul.NotFound:
        return
    raise AssertionError("a session that is gone is renewed")


class Lock:
    """The recipe of Consul's guide on leader election: acquire; if another has it, wait for the key to change."""

    def __init__(self, key):
        self.c, self.key = client(), key
        self.session = self.c.session.create(ttl=15, lock_delay=0, behavior="release")

    def acquire(self):
        index = None
        while not self.c.kv.put(self.key, self.session, acquire=self.session):
            index, row = self.c.kv.get(self.key, index=index, wait="10s")
            if row is None or "Session" not in row:
                index = None

    def release(self):
        assert self.c.kv.put(self.key, "", release=self.session)


def contend(make, acquire, release, turns, contenders=4):
    inside, worst, done, errors = [0], [0], [0], []

    def run():
        try:
            for _ in range(turns):
                lock = make()
                acquire(lock)
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                time.sleep(0.003)
                done[0] += 1
                inside[0] -= 1
                release(lock)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(contenders)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    same((errors, worst[0], done[0]), ([], 1, turns * contenders))


@step("lock: the recipe, four contenders, five turns each")
def _():
    contend(lambda: Lock("py-lock"), Lock.acquire, Lock.release, 5)


@step("lock: a session that ends gives the lock to who waits")
def _():
    first, second = Lock("py-lock2"), Lock("py-lock2")
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    time.sleep(0.1)
    assert waiting.is_alive()
    c.session.destroy(first.session)
    waiting.join(5)
    same(c.kv.get("py-lock2")[1]["Session"], second.session)


try:
    from consulock import ConsulLock
except ImportError:
    ConsulLock = None
if ConsulLock:
    @step("consulock: four contenders")
    def _():
        contend(
            lambda: ConsulLock("py/published", client(), value="v"),
            lambda lock: lock.acquire(interval=0.01, timeout=50),
            ConsulLock.release,
            2,
        )


@step("agent: services, checks of several kinds, TTL, maintenance")
def _():
    check = consul.Check.http(f"http://127.0.0.1:{port}/v1/status/leader", "1s", timeout="1s")
    assert c.agent.service.register("py-web", service_id="py-1", port=80, tags=["a", "b"], check=check)
    same((c.agent.services()["py-1"]["Tags"], c.agent.services()["py-1"]["Port"]), (["a", "b"], 80))
    soon(lambda: c.agent.checks()["service:py-1"]["Status"] == "passing")
    for kind, body in (("tcp", consul.Check.tcp("127.0.0.1", port, "1s")), ("ttl", consul.Check.ttl("1m"))):
        assert c.agent.check.register("py-" + kind, check=body)
    soon(lambda: c.agent.checks()["py-tcp"]["Status"] == "passing")
    assert c.agent.check.ttl_pass("py-ttl", "fine") and c.agent.checks()["py-ttl"]["Output"] == "fine"
    assert c.agent.check.ttl_warn("py-ttl") and c.agent.checks()["py-ttl"]["Status"] == "warning"
    assert c.agent.check.ttl_fail("py-ttl") and c.agent.checks()["py-ttl"]["Status"] == "critical"
    assert c.agent.service.maintenance("py-1", "true", "why")
    assert c.agent.checks()["_service_maintenance:py-1"]["Notes"] == "why"
    assert c.agent.service.maintenance("py-1", "false")
    same([c.agent.check.deregister("py-" + kind) for kind in ("tcp", "ttl")], [True, True])
    assert len(c.agent.members()) == 1


@step("catalog and health: services, tags, blocking, passing, state, node")
def _():
    soon(lambda: c.health.service("py-web", passing=True)[1])
    index, services = c.catalog.services()
    same(sorted(services["py-web"]), ["a", "b"])
    index, rows = c.health.service("py-web", tag="a")
    same((rows[0]["Service"]["ID"], rows[0]["Node"]["Address"]), ("py-1", "127.0.0.1"))
    woken = []
    waiting = threading.Thread(target=lambda: woken.append(client().health.service("py-web", index=index, wait="20s")))
    waiting.start()
    time.sleep(0.1)
    assert c.agent.service.deregister("py-1")
    waiting.join(5)
    same(woken[0][1], [])
    assert c.catalog.register("py-ext", "127.0.0.7", service={"Service": "py-ext", "Port": 1})
    same(c.catalog.service("py-ext")[1][0]["ServicePort"], 1)
    same(list(c.catalog.node("py-ext")[1]["Services"]), ["py-ext"])
    assert c.catalog.deregister("py-ext") and c.catalog.node("py-ext")[1] is None
    assert "dc1" in c.catalog.datacenters()
    assert [row for row in c.health.state("any")[1] if row["CheckID"] == "serfHealth"]
    assert c.health.node(c.agent.self()["Config"]["NodeName"])[1]


@step("event: fire, list, wait")
def _():
    c.event.fire("py-event", "body")
    index, events = soon(lambda: (found := c.event.list("py-event"))[1] and found)
    # Some editions of the client decode it, some do not.
    assert events[-1]["Payload"] in (b"body", "Ym9keQ=="), events


@step("status, operator, coordinates")
def _():
    same([c.status.leader()], c.status.peers())
    assert c.operator.raft_config()["Servers"][0]["Leader"]
    assert c.coordinate.datacenters()[0]["Datacenter"] == "dc1"


print(f"{counts[True]} passed, {counts[False]} failed")
sys.exit(1 if counts[False] else 0)
