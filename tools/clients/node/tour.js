// The npm package `consul` against a running agent: `node tour.js PORT`, with the package in NODE_PATH. Prints a line for each
// step and ends with their counts.
"use strict";

const assert = require("assert");
const Consul = require("consul");

const port = Number(process.argv[2]);
const make = () => new Consul({ host: "127.0.0.1", port });
const c = make();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const counts = { ok: 0, FAIL: 0 };

async function step(name, run) {
  let said = "ok";
  try {
    await run();
  } catch (error) {
    said = "FAIL";
    name += ` -- ${error.message.replace(/\s+/g, " ")}`;
  }
  counts[said] += 1;
  console.log(said, name);
}

async function soon(look) {
  for (let end = Date.now() + 10000; Date.now() < end; await pause(20)) {
    const found = await look();
    if (found) return found;
  }
  throw new Error("it does not happen");
}

/** Acquire; if another has it, wait for the key to change. */
async function lock(key, session) {
  const mine = make();
  for (let index = 0; !(await mine.kv.set({ key, value: session, acquire: session })); ) {
    const row = await mine.kv.get({ key, index, wait: "10s" });
    index = row && row.Session ? row.ModifyIndex : 0;
  }
}

async function main() {
  await step("kv: set, get, keys, cas, flags, delete", async () => {
    assert.strictEqual(await c.kv.set({ key: "js/a", value: "x", flags: 3 }), true);
    const row = await c.kv.get("js/a");
    assert.deepStrictEqual([row.Value, row.Flags], ["x", 3]);
    assert.deepStrictEqual(await c.kv.get({ key: "js/a", buffer: true }).then((row) => [...row.Value]), [120]);
    assert(!(await c.kv.set({ key: "js/a", value: "y", cas: String(row.ModifyIndex + 1) })));
    assert.deepStrictEqual(await c.kv.keys("js/"), ["js/a"]);
    assert.strictEqual(await c.kv.get("js/none"), undefined);
    assert.strictEqual(await c.kv.del({ key: "js/", recurse: true }), true);
  });
  await step("watch: a key, by blocking queries", async () => {
    const watch = c.watch({ method: c.kv.get, options: { key: "js/w", wait: "5s" } });
    const told = [];
    watch.on("change", (row) => told.push(row && row.Value));
    for (const value of ["1", "2", "3"]) {
      await c.kv.set("js/w", value);
      await soon(() => told.at(-1) === value);
    }
    watch.end();
  });
  await step("session: create, get, list, node, renew, destroy", async () => {
    const { ID } = await c.session.create({ name: "js", ttl: "15s", lockdelay: "0s", behavior: "delete" });
    const entry = await c.session.get(ID);
    assert.deepStrictEqual([entry.Name, entry.TTL, entry.Behavior], ["js", "15s", "delete"]);
    assert((await c.session.list()).some((row) => row.ID === ID));
    assert((await c.session.node(entry.Node)).some((row) => row.ID === ID));
    assert.strictEqual((await c.session.renew(ID))[0].ID, ID);
    await c.session.destroy(ID);
    assert.strictEqual(await c.session.get(ID), undefined);
  });
  await step("lock: four contenders, five turns each", async () => {
    let inside = 0;
    let worst = 0;
    let turns = 0;
    const contend = async () => {
      const { ID } = await make().session.create({ ttl: "15s", lockdelay: "0s" });
      for (let turn = 0; turn < 5; turn++) {
        await lock("js-lock", ID);
        worst = Math.max(worst, ++inside);
        await pause(2);
        inside--;
        turns++;
        await c.kv.set({ key: "js-lock", value: "", release: ID });
      }
    };
    await Promise.all([contend(), contend(), contend(), contend()]);
    assert.deepStrictEqual([worst, turns], [1, 20]);
  });
  await step("agent: services, checks, maintenance", async () => {
    await c.agent.service.register({ name: "js-web", id: "js-1", port: 80, tags: ["a"], check: { http: `http://127.0.0.1:${port}/v1/status/leader`, interval: "1s" } });
    await c.agent.check.register({ name: "js-ttl", ttl: "60s" });
    await c.agent.check.pass("js-ttl");
    assert.strictEqual((await c.agent.checks())["js-ttl"].Status, "passing");
    await soon(async () => (await c.agent.checks())["service:js-1"].Status === "passing");
    await c.agent.service.maintenance({ id: "js-1", enable: true, reason: "why" });
    assert.strictEqual((await c.agent.checks())["_service_maintenance:js-1"].Notes, "why");
    await c.agent.service.maintenance({ id: "js-1", enable: false });
    await c.agent.check.deregister("js-ttl");
    assert.strictEqual((await c.agent.members()).length, 1);
    assert((await c.agent.self()).Config.NodeName);
  });
  await step("catalog, health: services, nodes, passing, state", async () => {
    await soon(async () => (await c.health.service({ service: "js-web", passing: true })).length === 1);
    assert.deepStrictEqual((await c.catalog.service.list())["js-web"], ["a"]);
    const [row] = await c.catalog.service.nodes("js-web");
    assert.strictEqual(row.ServicePort, 80);
    assert.strictEqual((await c.catalog.node.services(row.Node)).Services["js-1"].Port, 80);
    assert.deepStrictEqual(await c.catalog.datacenters(), ["dc1"]);
    assert((await c.health.state("passing")).some((check) => check.CheckID === "serfHealth"));
    await c.agent.service.deregister("js-1");
    await soon(async () => (await c.health.service("js-web")).length === 0);
  });
  await step("event, status, transaction", async () => {
    await c.event.fire({ name: "js", payload: "body" });
    assert.strictEqual((await soon(async () => (await c.event.list("js"))[0])).Payload, "body");
    assert.deepStrictEqual(await c.status.peers(), [await c.status.leader()]);
    const done = await c.transaction.create([{ KV: { Verb: "set", Key: "js/t", Value: Buffer.from("x").toString("base64") } }]);
    assert.strictEqual(done.Results[0].KV.Key, "js/t");
  });
  console.log(`${counts.ok} passed, ${counts.FAIL} failed`);
  process.exit(counts.FAIL ? 1 : 0);
}

main();
