// The Go client (github.com/hashicorp/consul/api) and what is built on it, against a running agent. Prints one line for each
// step, `ok NAME` or `FAIL NAME -- WHY`, and ends with their counts. The address is that of CONSUL_HTTP_ADDR.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/ioutil"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

var passed, failed int

func step(name string, run func() error) {
	if err := run(); err != nil {
		failed++
		fmt.Printf("FAIL %s -- %v\n", name, err)
		return
	}
	passed++
	fmt.Printf("ok %s\n", name)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func want(what string, got, expected interface{}) error {
	if !reflect.DeepEqual(got, expected) {
		return fmt.Errorf("%s: %v, not %v", what, got, expected)
	}
	return nil
}

// soon asks until the answer is no error.
func soon(ask func() error) error {
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = ask(); err == nil {
			return nil
		}
	}
	return err
}

func main() {
	client, err := api.NewClient(api.DefaultConfig())
	must(err)
	steps(client)
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func steps(c *api.Client) {
	step("lock: contenders hold it one by one", func() error { return lockInTurns(c) })
	step("lock: options, a value, flags, try once, conflict", func() error { return lockOptions(c) })
	step("lock: lost when its session is destroyed", func() error { return lockLost(c) })
	step("lock: lost when its key is deleted", func() error { return lockDeleted(c) })
	step("semaphore: three of eight at a time", func() error { return semaphore(c) })
	step("session: kept by RenewPeriodic, ended with it", func() error { return renewPeriodic(c) })
	step("session: ends with its TTL", func() error { return sessionEnds(c) })
	step("session: behaviours, checks, lists", func() error { return sessionKinds(c) })
	step("kv: cas, flags, keys, lists, deletes", func() error { return keys(c) })
	step("kv: blocking queries, their indexes and waits", func() error { return blocking(c) })
	step("txn: operations and errors", func() error { return txn(c) })
	for _, kind := range []string{"key", "keyprefix", "services", "nodes", "service", "checks", "event", "agent_service"} {
		kind := kind
		step("watch: "+kind, func() error { return watching(c, kind) })
	}
	step("agent: services with checks of all types", func() error { return register(c) })
	step("agent: checks' states, maintenance, health of services", func() error { return agentHealth(c) })
	step("agent: self, members, host, metrics", func() error { return about(c) })
	step("catalog: nodes, services, filters, metadata", func() error { return catalog(c) })
	step("health: states, filters, near", func() error { return health(c) })
	step("event: fire and list", func() error { return event(c) })
	step("snapshot: save and restore", func() error { return snapshot(c) })
	step("operator: raft, autopilot, keyring", func() error { return operator(c) })
	step("status, coordinates", func() error { return status(c) })
	step("raw: query and write", func() error { return raw(c) })
}

func register(c *api.Client) error {
	address := os.Getenv("CONSUL_HTTP_ADDR")
	checks := api.AgentServiceChecks{
		{Name: "ttl", TTL: "1m", Status: "passing", Notes: "told"},
		{Name: "http", HTTP: "http://" + address + "/v1/status/leader", Method: "GET", Header: map[string][]string{"X-A": {"b"}}, Interval: "1s", Timeout: "1s"},
		{Name: "tcp", TCP: address, Interval: "1s", Timeout: "1s"},
		{Name: "script", Args: []string{"/bin/sh", "-c", "echo fine"}, Interval: "1s"},
		{Name: "warns", Args: []string{"/bin/sh", "-c", "exit 1"}, Interval: "1s"},
		{Name: "grpc", GRPC: address, Interval: "1s", Timeout: "500ms"},
		{Name: "alias", AliasService: "consul-other"},
		{Name: "docker", DockerContainerID: "x", Shell: "/bin/sh", Args: []string{"true"}, Interval: "1s"},
		{Name: "reaped", TTL: "1m", DeregisterCriticalServiceAfter: "10m", SuccessBeforePassing: 2, FailuresBeforeCritical: 3},
	}
	must(c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "other", ID: "consul-other", Port: 1}))
	registration := &api.AgentServiceRegistration{ID: "all-1", Name: "all", Port: 80, Address: "127.0.0.1", Tags: []string{"a", "b"},
		Meta: map[string]string{"k": "v"}, Weights: &api.AgentWeights{Passing: 5, Warning: 2}, EnableTagOverride: true, Checks: checks,
		TaggedAddresses: map[string]api.ServiceAddress{"lan": {Address: "127.0.0.1", Port: 80}, "wan": {Address: "127.0.0.2", Port: 81}}}
	if err := c.Agent().ServiceRegister(registration); err != nil {
		return err
	}
	service, _, err := c.Agent().Service("all-1", nil)
	must(err)
	if service.Meta["k"] != "v" || service.Weights.Passing != 5 || !service.EnableTagOverride || service.TaggedAddresses["wan"].Port != 81 || service.ContentHash == "" {
		return fmt.Errorf("%+v", service)
	}
	states := map[string]string{"ttl": "passing", "http": "passing", "tcp": "passing", "script": "passing", "warns": "warning", "grpc": "critical",
		"alias": "passing", "docker": "critical", "reaped": "critical"}
	defer func() { must(c.Agent().ServiceDeregister("all-1")) }()
	return soon(func() error {
		all, err := c.Agent().ChecksWithFilter(`ServiceID == "all-1"`)
		must(err)
		got := map[string]string{}
		for _, check := range all {
			got[check.Name] = check.Status
		}
		return want("states", got, states)
	})
}

func agentHealth(c *api.Client) error {
	agent := c.Agent()
	must(agent.ServiceRegister(&api.AgentServiceRegistration{Name: "told", Port: 1, Check: &api.AgentServiceCheck{TTL: "1m"}}))
	defer func() { must(agent.ServiceDeregister("told")) }()
	for _, state := range []string{"passing", "warning", "critical"} {
		must(agent.UpdateTTL("service:told", "it is "+state, state))
		got, infos, err := agent.AgentHealthServiceByName("told")
		must(err)
		if got != state || len(infos) != 1 || infos[0].Checks[0].Output != "it is "+state {
			return fmt.Errorf("%s: %s %+v", state, got, infos)
		}
	}
	must(agent.UpdateTTL("service:told", "", "passing"))
	must(agent.EnableServiceMaintenance("told", "why"))
	state, _, err := agent.AgentHealthServiceByID("told")
	must(err)
	must(agent.DisableServiceMaintenance("told"))
	must(agent.EnableNodeMaintenance("node"))
	checks, err := agent.Checks()
	must(err)
	must(agent.DisableNodeMaintenance())
	// The client makes "critical" of every 503, of maintenance too.
	if state != "critical" || checks["_node_maintenance"] == nil || checks["_node_maintenance"].Notes != "node" {
		return fmt.Errorf("%s %+v", state, checks)
	}
	if err := agent.UpdateTTL("nothing", "", "passing"); err == nil {
		return errors.New("an unknown check is updated")
	}
	state, infos, err := agent.AgentHealthServiceByName("nothing")
	return want("an unknown service", []interface{}{state, len(infos), err}, []interface{}{"critical", 0, error(nil)})
}

func about(c *api.Client) error {
	self, err := c.Agent().Self()
	must(err)
	address, ok := self["DebugConfig"]["SerfAdvertiseAddrLAN"].(string)
	if !ok || self["Config"]["Datacenter"] != "dc1" {
		return fmt.Errorf("self: %v", self["DebugConfig"])
	}
	if err := c.Agent().Join(strings.TrimPrefix(address, "tcp://"), false); err != nil {
		return fmt.Errorf("joining itself: %v", err)
	}
	members, err := c.Agent().Members(false)
	must(err)
	if len(members) != 1 || members[0].Tags["role"] != "consul" || members[0].Status != 1 {
		return fmt.Errorf("members: %+v", members)
	}
	host, err := c.Agent().Host()
	must(err)
	metrics, err := c.Agent().Metrics()
	must(err)
	if host["Memory"] == nil || len(metrics.Gauges) == 0 {
		return fmt.Errorf("host %v, %d gauges", host["Memory"], len(metrics.Gauges))
	}
	return c.Agent().Reload()
}

func catalog(c *api.Client) error {
	for i := 0; i < 3; i++ {
		_, err := c.Catalog().Register(&api.CatalogRegistration{Node: fmt.Sprintf("ext-%d", i), Address: fmt.Sprintf("127.0.1.%d", i),
			NodeMeta: map[string]string{"rack": fmt.Sprint(i % 2)},
			Service:  &api.AgentService{ID: "ext", Service: "ext", Port: 1000 + i, Tags: []string{fmt.Sprintf("t%d", i)}, Meta: map[string]string{"v": fmt.Sprint(i)}},
			Checks:   api.HealthChecks{{CheckID: "ext", Name: "ext", ServiceID: "ext", Status: "passing"}}}, nil)
		must(err)
	}
	nodes, meta, err := c.Catalog().Nodes(&api.QueryOptions{NodeMeta: map[string]string{"rack": "0"}})
	must(err)
	if len(nodes) != 2 || !meta.KnownLeader || meta.LastContact != 0 {
		return fmt.Errorf("%d nodes, %+v", len(nodes), meta)
	}
	found, _, err := c.Catalog().Service("ext", "", &api.QueryOptions{Filter: `ServicePort == 1001 or ServiceMeta.v == "2"`})
	must(err)
	tagged, _, err := c.Catalog().ServiceMultipleTags("ext", []string{"t0"}, nil)
	must(err)
	if len(found) != 2 || len(tagged) != 1 || tagged[0].Address != "127.0.1.0" {
		return fmt.Errorf("%d filtered, %d tagged", len(found), len(tagged))
	}
	if _, _, err := c.Catalog().Service("ext", "", &api.QueryOptions{Filter: `Nope == 1`}); err == nil {
		return errors.New("a wrong filter is taken")
	}
	cached, meta, err := c.Catalog().Service("ext", "", &api.QueryOptions{UseCache: true})
	must(err)
	list, _, err := c.Catalog().NodeServiceList("ext-1", nil)
	must(err)
	if len(cached) != 3 || len(list.Services) != 1 || list.Services[0].Port != 1001 {
		return fmt.Errorf("%d cached, %+v", len(cached), list)
	}
	node, _, err := c.Catalog().Node("nobody", nil)
	must(err)
	return want("an unknown node", node == nil, true)
}

func health(c *api.Client) error {
	entries, _, err := c.Health().ServiceMultipleTags("ext", []string{"t1"}, true, &api.QueryOptions{Near: "_agent"})
	must(err)
	if len(entries) != 1 || entries[0].Service.Port != 1001 || entries[0].Checks.AggregatedStatus() != "passing" || entries[0].Node.Meta["rack"] != "1" {
		return fmt.Errorf("%+v", entries)
	}
	filtered, _, err := c.Health().Service("ext", "", false, &api.QueryOptions{Filter: `Node.Meta.rack == "0" and not Service.Tags contains "t2"`})
	must(err)
	checks, _, err := c.Health().State("any", &api.QueryOptions{Filter: `Node matches "^ext-"`})
	must(err)
	of, _, err := c.Health().Node("ext-1", nil)
	must(err)
	if len(filtered) != 1 || len(checks) != 3 || len(of) != 1 {
		return fmt.Errorf("%d filtered, %d checks, %d of the node", len(filtered), len(checks), len(of))
	}
	for i := 0; i < 3; i++ {
		_, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: fmt.Sprintf("ext-%d", i)}, nil)
		must(err)
	}
	none, _, err := c.Health().Service("ext", "", false, nil)
	must(err)
	return want("left", len(none), 0)
}

func event(c *api.Client) error {
	id, _, err := c.Event().Fire(&api.UserEvent{Name: "clients", Payload: []byte{1, 2, 3}, NodeFilter: ".*"}, nil)
	must(err)
	return soon(func() error {
		events, meta, err := c.Event().List("clients", nil)
		must(err)
		if len(events) == 0 || meta.LastIndex != c.Event().IDToIndex(id) {
			return fmt.Errorf("%d events, index %d", len(events), meta.LastIndex)
		}
		return want("payload", events[len(events)-1].Payload, []byte{1, 2, 3})
	})
}

func snapshot(c *api.Client) error {
	_, err := c.KV().Put(&api.KVPair{Key: "clients/kept", Value: []byte("before")}, nil)
	must(err)
	archive, meta, err := c.Snapshot().Save(nil)
	must(err)
	saved, err := ioutil.ReadAll(archive)
	must(err)
	archive.Close()
	if meta.LastIndex == 0 || !meta.KnownLeader {
		return fmt.Errorf("%+v", meta)
	}
	_, err = c.KV().Put(&api.KVPair{Key: "clients/kept", Value: []byte("after")}, nil)
	must(err)
	if err := c.Snapshot().Restore(nil, bytes.NewReader(saved)); err != nil {
		return err
	}
	if err := c.Snapshot().Restore(nil, strings.NewReader("rubbish")); err == nil {
		return errors.New("rubbish is restored")
	}
	pair, _, err := c.KV().Get("clients/kept", nil)
	must(err)
	return want("restored", string(pair.Value), "before")
}

func operator(c *api.Client) error {
	configuration, err := c.Operator().RaftGetConfiguration(nil)
	must(err)
	if len(configuration.Servers) != 1 || !configuration.Servers[0].Leader || !configuration.Servers[0].Voter {
		return fmt.Errorf("%+v", configuration)
	}
	rules, err := c.Operator().AutopilotGetConfiguration(nil)
	must(err)
	rules.MaxTrailingLogs = 300
	done, err := c.Operator().AutopilotCASConfiguration(rules, nil)
	must(err)
	again, err := c.Operator().AutopilotCASConfiguration(&api.AutopilotConfiguration{ModifyIndex: 1}, nil)
	must(err)
	if !done || again {
		return fmt.Errorf("cas: %v, then %v", done, again)
	}
	if err := c.Operator().RaftRemovePeerByAddress("127.0.0.1:1", nil); err == nil {
		return errors.New("a server that is none is removed")
	}
	return soon(func() error {
		judged, err := c.Operator().AutopilotServerHealth(nil)
		if err != nil {
			return err
		}
		return want("healthy", []interface{}{judged.Healthy, len(judged.Servers)}, []interface{}{true, 1})
	})
}

func status(c *api.Client) error {
	leader, err := c.Status().Leader()
	must(err)
	peers, err := c.Status().Peers()
	must(err)
	if err := want("the leader", peers, []string{leader}); err != nil {
		return err
	}
	places, err := c.Coordinate().Datacenters()
	must(err)
	if len(places) != 1 || len(places[0].Coordinates) != 1 {
		return fmt.Errorf("%+v", places)
	}
	_, _, err = c.Coordinate().Nodes(nil)
	return err
}

func raw(c *api.Client) error {
	var answer string
	if _, err := c.Raw().Query("/v1/status/leader", &answer, nil); err != nil || answer == "" {
		return fmt.Errorf("%q %v", answer, err)
	}
	_, err := c.Raw().Write("/v1/kv/clients/raw", map[string]int{"a": 1}, nil, nil)
	return err
}
