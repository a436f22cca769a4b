// Docker's libkv, a library for keys, watches and locks on several stores, with its own tests, each by itself: run together they
// end at the first that Consul itself does not pass (its watch counts writes that change nothing). The address is that of
// CONSUL_HTTP_ADDR; the agent needs session_ttl_min = "1s".
package libkv

import (
	"os"
	"testing"
	"time"

	"github.com/docker/libkv/store"
	"github.com/docker/libkv/store/consul"
	"github.com/docker/libkv/testutils"
)

func connect(t *testing.T) store.Store {
	kv, err := consul.New([]string{os.Getenv("CONSUL_HTTP_ADDR")}, &store.Config{ConnectionTimeout: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestCommon(t *testing.T)  { testutils.RunTestCommon(t, connect(t)) }
func TestAtomic(t *testing.T)  { testutils.RunTestAtomic(t, connect(t)) }
func TestWatch(t *testing.T)   { testutils.RunTestWatch(t, connect(t)) }
func TestLock(t *testing.T)    { testutils.RunTestLock(t, connect(t)) }
func TestLockTTL(t *testing.T) { testutils.RunTestLockTTL(t, connect(t), connect(t)) }
func TestTTL(t *testing.T)     { testutils.RunTestTTL(t, connect(t), connect(t)) }
