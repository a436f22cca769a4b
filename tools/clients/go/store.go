package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
	"github.com/hashicorp/go-hclog"
)

func keys(c *api.Client) error {
	kv := c.KV()
	for i := 0; i < 5; i++ {
		_, err := kv.Put(&api.KVPair{Key: fmt.Sprintf("clients/kv/%d/x", i), Value: []byte{0, 255, byte(i)}, Flags: uint64(i) << 60}, nil)
		must(err)
	}
	pair, meta, err := kv.Get("clients/kv/3/x", &api.QueryOptions{RequireConsistent: true})
	must(err)
	if !bytes.Equal(pair.Value, []byte{0, 255, 3}) || pair.Flags != 3<<60 || meta.LastIndex != pair.ModifyIndex {
		return fmt.Errorf("%+v %+v", pair, meta)
	}
	done, _, err := kv.CAS(&api.KVPair{Key: pair.Key, Value: []byte("new"), ModifyIndex: pair.ModifyIndex}, nil)
	must(err)
	again, _, err := kv.CAS(pair, nil)
	must(err)
	if !done || again {
		return fmt.Errorf("cas: %v, then %v", done, again)
	}
	names, _, err := kv.Keys("clients/kv/", "/", &api.QueryOptions{AllowStale: true})
	must(err)
	if err := want("folders", names, []string{"clients/kv/0/", "clients/kv/1/", "clients/kv/2/", "clients/kv/3/", "clients/kv/4/"}); err != nil {
		return err
	}
	list, _, err := kv.List("clients/kv/", nil)
	must(err)
	gone, _, err := kv.DeleteCAS(&api.KVPair{Key: "clients/kv/0/x", ModifyIndex: 1}, nil)
	must(err)
	if len(list) != 5 || gone {
		return fmt.Errorf("%d listed, deleted by an old index: %v", len(list), gone)
	}
	_, err = kv.Put(&api.KVPair{Key: "/leading"}, nil)
	if err == nil {
		return errors.New("a leading slash is taken")
	}
	if _, err := kv.Put(&api.KVPair{Key: "clients/big", Value: make([]byte, 600<<10)}, nil); err == nil || !strings.Contains(err.Error(), "413") {
		return fmt.Errorf("600 KiB: %v", err)
	}
	_, err = kv.DeleteTree("clients/kv/", nil)
	must(err)
	list, meta, err = kv.List("clients/kv/", nil)
	must(err)
	return want("left", []interface{}{len(list), meta.LastIndex > pair.ModifyIndex}, []interface{}{0, true})
}

func blocking(c *api.Client) error {
	_, err := c.KV().Put(&api.KVPair{Key: "clients/wait", Value: []byte("1")}, nil)
	must(err)
	_, meta, err := c.KV().Get("clients/wait", nil)
	must(err)
	woken := make(chan *api.KVPair, 1)
	go func() {
		pair, _, _ := c.KV().Get("clients/wait", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 20 * time.Second})
		woken <- pair
	}()
	time.Sleep(100 * time.Millisecond)
	_, err = c.KV().Put(&api.KVPair{Key: "clients/wait", Value: []byte("2")}, nil)
	must(err)
	select {
	case pair := <-woken:
		if pair == nil || string(pair.Value) != "2" {
			return fmt.Errorf("%+v", pair)
		}
	case <-time.After(3 * time.Second):
		return errors.New("it sleeps on")
	}
	_, meta, err = c.KV().Get("clients/wait", nil)
	must(err)
	start := time.Now()
	_, after, err := c.KV().Get("clients/wait", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 500 * time.Millisecond})
	must(err)
	if spent := time.Since(start); spent < 450*time.Millisecond || spent > 3*time.Second || after.LastIndex != meta.LastIndex {
		return fmt.Errorf("waited %v, index %d, then %d", spent, meta.LastIndex, after.LastIndex)
	}
	return nil
}

func txn(c *api.Client) error {
	id, _, err := c.Session().CreateNoChecks(nil, nil)
	must(err)
	ops := api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "clients/txn/a", Value: []byte("1"), Flags: 7}},
		{KV: &api.KVTxnOp{Verb: api.KVLock, Key: "clients/txn/l", Value: []byte("l"), Session: id}},
		{KV: &api.KVTxnOp{Verb: api.KVGetTree, Key: "clients/txn/"}},
		{KV: &api.KVTxnOp{Verb: api.KVCheckSession, Key: "clients/txn/l", Session: id}},
		{KV: &api.KVTxnOp{Verb: api.KVCheckNotExists, Key: "clients/txn/none"}},
		{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "txn-node", Address: "127.0.0.9"}}},
		{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "txn-node", Service: api.AgentService{ID: "s", Service: "txn-s", Port: 99}}},
		{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: api.HealthCheck{Node: "txn-node", CheckID: "c", Name: "c", ServiceID: "s", Status: "warning",
			Definition: api.HealthCheckDefinition{TCP: "x:1", IntervalDuration: 5 * time.Second}}}},
	}
	ok, reply, _, err := c.Txn().Txn(ops, nil)
	if err != nil || !ok || len(reply.Errors) > 0 {
		return fmt.Errorf("%v %v %+v", ok, err, reply)
	}
	if len(reply.Results) != 8 || reply.Results[0].KV.Flags != 7 || string(reply.Results[3].KV.Value) != "l" || reply.Results[6].Service == nil ||
		reply.Results[7].Check.Definition.IntervalDuration != 5*time.Second {
		return fmt.Errorf("results: %d", len(reply.Results))
	}
	bad := api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVSet, Key: "clients/txn/b", Value: []byte("1")}},
		{KV: &api.KVTxnOp{Verb: api.KVCheckIndex, Key: "clients/txn/a", Index: 1}},
	}
	ok, reply, _, err = c.Txn().Txn(bad, nil)
	if err != nil || ok || len(reply.Errors) != 1 || reply.Errors[0].OpIndex != 1 {
		return fmt.Errorf("a failed one: %v %v %+v", ok, err, reply)
	}
	pair, _, err := c.KV().Get("clients/txn/b", nil)
	must(err)
	_, err = c.Catalog().Deregister(&api.CatalogDeregistration{Node: "txn-node"}, nil)
	must(err)
	return want("nothing of it", pair == nil, true)
}

func watching(c *api.Client, kind string) error {
	name := "clients-watch-" + kind
	params := map[string]interface{}{"type": kind}
	change := func() error { return c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, Port: 1}) }
	has := func(data interface{}) bool { return strings.Contains(fmt.Sprintf("%+v", data), name) }
	switch kind {
	case "key":
		params["key"] = name
	case "keyprefix":
		params["prefix"] = "clients-watch-"
	case "service":
		params["service"] = name
		has = func(data interface{}) bool { return len(data.([]*api.ServiceEntry)) == 1 }
	case "checks":
		params["state"] = "critical"
		change = func() error {
			return c.Agent().CheckRegister(&api.AgentCheckRegistration{ID: name, Name: name, AgentServiceCheck: api.AgentServiceCheck{TTL: "1m"}})
		}
		has = func(data interface{}) bool {
			for _, check := range data.([]*api.HealthCheck) {
				if check.CheckID == name {
					return true
				}
			}
			return false
		}
	case "nodes":
		change = func() error {
			_, err := c.Catalog().Register(&api.CatalogRegistration{Node: name, Address: "127.0.0.8"}, nil)
			return err
		}
		has = func(data interface{}) bool {
			for _, node := range data.([]*api.Node) {
				if node.Node == name {
					return true
				}
			}
			return false
		}
	case "event":
		params["name"] = name
		change = func() error { _, _, err := c.Event().Fire(&api.UserEvent{Name: name}, nil); return err }
		has = func(data interface{}) bool {
			events := data.([]*api.UserEvent)
			return len(events) > 0 && events[0].Name == name
		}
	case "agent_service":
		params["service_id"] = name
		must(change())
		change = func() error { return c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: name, Port: 2}) }
		has = func(data interface{}) bool { return data.(*api.AgentService).Port == 2 }
	}
	if kind == "key" || kind == "keyprefix" {
		change = func() error { _, err := c.KV().Put(&api.KVPair{Key: name}, nil); return err }
		has = func(data interface{}) bool {
			switch pairs := data.(type) {
			case *api.KVPair:
				return pairs != nil && pairs.Key == name
			case api.KVPairs:
				return len(pairs) > 0
			}
			return false
		}
	}
	plan, err := watch.Parse(params)
	must(err)
	told := make(chan interface{}, 64)
	plan.Handler = func(_ uint64, data interface{}) { told <- data }
	go func() { _ = plan.RunWithClientAndHclog(c, hclog.NewNullLogger()) }()
	defer plan.Stop()
	// What stood before, if anything did.
	select {
	case <-told:
	case <-time.After(300 * time.Millisecond):
	}
	must(change())
	defer func() { _ = c.Agent().CheckDeregister(name) }()
	for end := time.After(8 * time.Second); ; {
		select {
		case data := <-told:
			if has(data) {
				return nil
			}
		case <-end:
			return errors.New("the change is not told")
		}
	}
}
