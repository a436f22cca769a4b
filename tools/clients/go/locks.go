package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
)

func lockInTurns(c *api.Client) error {
	var inside, worst, turns int32
	var group sync.WaitGroup
	errs := make(chan error, 64)
	for i := 0; i < 6; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			lock, err := c.LockKey("clients/turns")
			if err != nil {
				errs <- err
				return
			}
			for turn := 0; turn < 5; turn++ {
				lost, err := lock.Lock(nil)
				if err != nil || lost == nil {
					errs <- fmt.Errorf("Lock: %v", err)
					return
				}
				if now := atomic.AddInt32(&inside, 1); now > 1 {
					atomic.StoreInt32(&worst, now)
				}
				time.Sleep(3 * time.Millisecond)
				atomic.AddInt32(&turns, 1)
				atomic.AddInt32(&inside, -1)
				if err := lock.Unlock(); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	group.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	if worst != 0 {
		return fmt.Errorf("%d at once", worst)
	}
	return want("turns", turns, int32(30))
}

func lockOptions(c *api.Client) error {
	opts := &api.LockOptions{Key: "clients/options", Value: []byte("me"), SessionTTL: "10s", MonitorRetries: 5,
		MonitorRetryTime: 100 * time.Millisecond, LockTryOnce: true, LockWaitTime: 300 * time.Millisecond}
	lock, err := c.LockOpts(opts)
	must(err)
	if _, err := lock.Lock(nil); err != nil {
		return err
	}
	pair, _, err := c.KV().Get("clients/options", nil)
	must(err)
	if string(pair.Value) != "me" || pair.Flags != api.LockFlagValue || pair.Session == "" {
		return fmt.Errorf("the key is %+v", pair)
	}
	other, err := c.LockOpts(&api.LockOptions{Key: "clients/options", LockTryOnce: true, LockWaitTime: 300 * time.Millisecond})
	must(err)
	start := time.Now()
	lost, err := other.Lock(nil)
	if err != nil || lost != nil {
		return fmt.Errorf("a second one has it: %v %v", lost, err)
	}
	if spent := time.Since(start); spent < 250*time.Millisecond || spent > 2*time.Second {
		return fmt.Errorf("it tried for %v", spent)
	}
	if _, err := lock.Lock(nil); err != api.ErrLockHeld {
		return fmt.Errorf("a held lock taken again: %v", err)
	}
	if err := lock.Destroy(); err != api.ErrLockHeld {
		return fmt.Errorf("a held lock destroyed: %v", err)
	}
	must(lock.Unlock())
	if err := lock.Destroy(); err != nil {
		return err
	}
	_, err = c.KV().Put(&api.KVPair{Key: "clients/options", Value: []byte("x"), Flags: 1}, nil)
	must(err)
	if _, err := other.Lock(nil); err != api.ErrLockConflict {
		return fmt.Errorf("no conflict with a plain key: %v", err)
	}
	return nil
}

func lockLost(c *api.Client) error {
	lock, err := c.LockOpts(&api.LockOptions{Key: "clients/lost", MonitorRetries: 0})
	must(err)
	lost, err := lock.Lock(nil)
	must(err)
	pair, _, err := c.KV().Get("clients/lost", nil)
	must(err)
	_, err = c.Session().Destroy(pair.Session, nil)
	must(err)
	select {
	case <-lost:
	case <-time.After(5 * time.Second):
		return errors.New("nobody told the holder")
	}
	// Its lock-delay (15 s) begins now; another one has to wait for it.
	id, _, err := c.Session().Create(&api.SessionEntry{}, nil)
	must(err)
	taken, _, err := c.KV().Acquire(&api.KVPair{Key: "clients/lost", Session: id}, nil)
	must(err)
	return want("taken within the lock-delay", taken, false)
}

func lockDeleted(c *api.Client) error {
	lock, err := c.LockKey("clients/deleted")
	must(err)
	lost, err := lock.Lock(nil)
	must(err)
	_, err = c.KV().Delete("clients/deleted", nil)
	must(err)
	select {
	case <-lost:
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("nobody told the holder")
	}
}

func semaphore(c *api.Client) error {
	var inside, worst, turns int32
	var group sync.WaitGroup
	errs := make(chan error, 64)
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			places, err := c.SemaphorePrefix("clients/places", 3)
			if err != nil {
				errs <- err
				return
			}
			for turn := 0; turn < 3; turn++ {
				lost, err := places.Acquire(nil)
				if err != nil || lost == nil {
					errs <- fmt.Errorf("Acquire: %v", err)
					return
				}
				now := atomic.AddInt32(&inside, 1)
				for seen := atomic.LoadInt32(&worst); now > seen && !atomic.CompareAndSwapInt32(&worst, seen, now); {
					seen = atomic.LoadInt32(&worst)
				}
				time.Sleep(5 * time.Millisecond)
				atomic.AddInt32(&turns, 1)
				atomic.AddInt32(&inside, -1)
				if err := places.Release(); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	group.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	if worst < 1 || worst > 3 {
		return fmt.Errorf("%d at once", worst)
	}
	if err := want("turns", turns, int32(24)); err != nil {
		return err
	}
	places, err := c.SemaphorePrefix("clients/places", 4)
	must(err)
	if _, err := places.Acquire(nil); err != api.ErrSemaphoreConflict && err == nil {
		must(places.Release())
	}
	return places.Destroy()
}

func renewPeriodic(c *api.Client) error {
	id, _, err := c.Session().Create(&api.SessionEntry{Name: "kept", TTL: "10s", Behavior: api.SessionBehaviorDelete}, nil)
	must(err)
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- c.Session().RenewPeriodic("10s", id, nil, stop) }()
	time.Sleep(500 * time.Millisecond)
	entry, meta, err := c.Session().Renew(id, nil)
	must(err)
	if entry == nil || entry.ID != id || entry.TTL != "10s" || meta == nil {
		return fmt.Errorf("renewed: %+v", entry)
	}
	close(stop)
	if err := <-done; err != nil {
		return err
	}
	return soon(func() error {
		entry, _, err := c.Session().Info(id, nil)
		must(err)
		return want("session", entry == nil, true)
	})
}

func sessionEnds(c *api.Client) error {
	id, _, err := c.Session().CreateNoChecks(&api.SessionEntry{TTL: "10s", LockDelay: time.Millisecond}, nil)
	must(err)
	taken, _, err := c.KV().Acquire(&api.KVPair{Key: "clients/ends", Session: id}, nil)
	must(err)
	if err := want("taken", taken, true); err != nil {
		return err
	}
	start := time.Now()
	pair, meta, err := c.KV().Get("clients/ends", nil)
	must(err)
	for pair.Session != "" {
		if time.Since(start) > 25*time.Second {
			return errors.New("it never ends")
		}
		pair, meta, err = c.KV().Get("clients/ends", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 5 * time.Second})
		must(err)
	}
	if spent := time.Since(start); spent < 9900*time.Millisecond {
		return fmt.Errorf("after %v", spent)
	}
	return nil
}

func sessionKinds(c *api.Client) error {
	node, err := c.Agent().NodeName()
	must(err)
	if err := want("short TTL refused", strings.Contains(fmt.Sprint(second(c.Session().Create(&api.SessionEntry{TTL: "1s"}, nil))), "Invalid Session TTL"), true); err != nil {
		return err
	}
	if err := want("unknown node refused", second(c.Session().Create(&api.SessionEntry{Node: "nobody"}, nil)) != nil, true); err != nil {
		return err
	}
	must(c.Agent().CheckRegister(&api.AgentCheckRegistration{ID: "holds", Name: "holds", AgentServiceCheck: api.AgentServiceCheck{TTL: "1m", Status: "passing"}}))
	var id string
	if err := soon(func() error {
		id, _, err = c.Session().Create(&api.SessionEntry{Name: "checked", NodeChecks: []string{"serfHealth", "holds"}, Behavior: "release"}, nil)
		return err
	}); err != nil {
		return err
	}
	listed, _, err := c.Session().Node(node, nil)
	must(err)
	found := false
	for _, entry := range listed {
		found = found || entry.ID == id && entry.Name == "checked" && entry.LockDelay == 15*time.Second
	}
	if !found {
		return fmt.Errorf("not in the node's list: %v", listed)
	}
	must(c.Agent().FailTTL("holds", "gone"))
	defer func() { must(c.Agent().CheckDeregister("holds")) }()
	return soon(func() error {
		entry, _, err := c.Session().Info(id, nil)
		must(err)
		return want("ended with its check", entry == nil, true)
	})
}

func second(_ string, _ *api.WriteMeta, err error) error { return err }
