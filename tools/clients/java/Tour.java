import com.ecwid.consul.v1.ConsulClient;
import com.ecwid.consul.v1.QueryParams;
import com.ecwid.consul.v1.Response;
import com.ecwid.consul.v1.agent.model.NewCheck;
import com.ecwid.consul.v1.agent.model.NewService;
import com.ecwid.consul.v1.catalog.CatalogNodesRequest;
import com.ecwid.consul.v1.catalog.CatalogServiceRequest;
import com.ecwid.consul.v1.catalog.CatalogServicesRequest;
import com.ecwid.consul.v1.event.EventListRequest;
import com.ecwid.consul.v1.event.model.Event;
import com.ecwid.consul.v1.event.model.EventParams;
import com.ecwid.consul.v1.health.HealthServicesRequest;
import com.ecwid.consul.v1.kv.model.GetValue;
import com.ecwid.consul.v1.kv.model.PutParams;
import com.ecwid.consul.v1.session.model.NewSession;
import com.ecwid.consul.v1.session.model.Session;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The Java client com.ecwid.consul:consul-api, and the lock recipe on it, against a running agent: {@code Tour PORT}. Prints a
 * line for each step, {@code ok NAME} or {@code FAIL NAME -- WHY}, and ends with their counts.
 */
public class Tour {
  static final QueryParams NOTHING = QueryParams.DEFAULT;
  static int passed;
  static int failed;
  static int port;

  interface Step {
    Object run() throws Exception;
  }

  static void step(String name, Object wanted, Step step) {
    String why;
    try {
      Object got = step.run();
      why = Objects.equals(got, wanted) ? null : got + ", not " + wanted;
    } catch (Throwable error) {
      why = error.toString();
    }
    if (why == null) {
      passed++;
    } else {
      failed++;
    }
    System.out.println(why == null ? "ok " + name : "FAIL " + name + " -- " + why);
  }

  /** Asks until the answer is yes. */
  static boolean soon(Step look) throws Exception {
    for (int i = 0; i < 500; i++) {
      if (Boolean.TRUE.equals(look.run())) {
        return true;
      }
      Thread.sleep(20);
    }
    return false;
  }

  static ConsulClient client() {
    return new ConsulClient("localhost", port);
  }

  /** The recipe: acquire; if another has it, wait for the key to change. */
  static class Lock {
    final ConsulClient client = client();
    final String key;
    final String session;

    Lock(String key, String ttl) {
      this.key = key;
      NewSession wanted = new NewSession();
      wanted.setName("java");
      wanted.setTtl(ttl);
      wanted.setLockDelay(0);
      wanted.setBehavior(Session.Behavior.DELETE);
      session = client.sessionCreate(wanted, NOTHING).getValue();
    }

    boolean tried() {
      PutParams params = new PutParams();
      params.setAcquireSession(session);
      return client.setKVValue(key, "held", params).getValue();
    }

    void acquire() {
      long index = 0;
      while (!tried()) {
        Response<GetValue> answer = client.getKVValue(key, new QueryParams(5, index));
        boolean held = answer.getValue() != null && answer.getValue().getSession() != null;
        index = held ? answer.getConsulIndex() : 0;
      }
    }

    void release() {
      PutParams params = new PutParams();
      params.setReleaseSession(session);
      client.setKVValue(key, "", params);
    }

    void end() {
      client.sessionDestroy(session, NOTHING);
    }
  }

  public static void main(String[] words) throws Exception {
    port = Integer.parseInt(words[0]);
    ConsulClient c = client();
    keys(c);
    blocking(c);
    agent(c);
    locks(c);
    System.out.println(passed + " passed, " + failed + " failed");
    System.exit(failed > 0 ? 1 : 0);
  }

  static void keys(ConsulClient c) {
    byte[] bytes = new byte[256];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) i;
    }
    step("status: leader and peers", List.of(c.getStatusLeader().getValue()), () -> c.getStatusPeers().getValue());
    step("kv: set", true, () -> c.setKVValue("java/a", "x").getValue());
    step("kv: get", "x", () -> c.getKVValue("java/a").getValue().getDecodedValue());
    step("kv: a missing key", null, () -> c.getKVValue("java/none").getValue());
    step("kv: bytes", true, () -> {
      c.setKVBinaryValue("java/b", bytes);
      return Arrays.equals(bytes, c.getKVBinaryValue("java/b").getValue().getValue());
    });
    step("kv: keys", List.of("java/a", "java/b"), () -> c.getKVKeysOnly("java/").getValue());
    step("kv: values", 2, () -> c.getKVValues("java/").getValue().size());
    PutParams params = new PutParams();
    params.setCas(0L);
    step("kv: cas of an old index", false, () -> c.setKVValue("java/a", "y", params).getValue());
    params.setCas(c.getKVValue("java/a").getValue().getModifyIndex());
    step("kv: cas", true, () -> c.setKVValue("java/a", "y", params).getValue());
    step("kv: flags", 42L, () -> {
      PutParams flags = new PutParams();
      flags.setFlags(42L);
      c.setKVValue("java/f", "", flags);
      return c.getKVValue("java/f").getValue().getFlags();
    });
    step("kv: delete", null, () -> {
      c.deleteKVValues("java/");
      return c.getKVValues("java/").getValue();
    });
  }

  static void blocking(ConsulClient c) {
    step("blocking: a change wakes", "2", () -> {
      c.setKVValue("java-wait", "1");
      QueryParams since = new QueryParams(10, c.getKVValue("java-wait").getConsulIndex());
      ExecutorService other = Executors.newSingleThreadExecutor();
      Future<String> told = other.submit(() -> client().getKVValue("java-wait", since).getValue().getDecodedValue());
      Thread.sleep(200);
      if (told.isDone()) {
        return "it did not wait";
      }
      c.setKVValue("java-wait", "2");
      other.shutdown();
      return told.get(3, TimeUnit.SECONDS);
    });
    step("blocking: a wait ends", true, () -> {
      long index = c.getKVValue("java-wait").getConsulIndex();
      long begun = System.nanoTime();
      boolean same = c.getKVValue("java-wait", new QueryParams(1, index)).getConsulIndex() == index;
      double spent = (System.nanoTime() - begun) / 1e9;
      return same && spent > 0.9 && spent < 3;
    });
  }

  static HealthServicesRequest healthy() {
    return HealthServicesRequest.newBuilder().setPassing(true).setTag("a").setQueryParams(NOTHING).build();
  }

  static void agent(ConsulClient c) {
    NewService service = new NewService();
    service.setId("java-1");
    service.setName("java");
    service.setPort(8080);
    service.setTags(List.of("a", "b"));
    service.setMeta(Map.of("k", "v"));
    NewService.Check check = new NewService.Check();
    check.setTtl("30s");
    check.setDeregisterCriticalServiceAfter("1h");
    service.setCheck(check);
    step("agent: self, members", 1, () -> {
      Objects.requireNonNull(c.getAgentSelf().getValue().getConfig().getNodeName());
      Objects.requireNonNull(c.getAgentSelf().getValue().getDebugConfig());
      return c.getAgentMembers().getValue().size();
    });
    step("agent: register", true, () -> {
      c.agentServiceRegister(service);
      return c.getAgentServices().getValue().containsKey("java-1");
    });
    step("health: critical until told", 0, () -> c.getHealthServices("java", healthy()).getValue().size());
    step("health: passing", true, () -> {
      c.agentCheckPass("service:java-1", "fine");
      return soon(() -> c.getHealthServices("java", healthy()).getValue().size() == 1);
    });
    CatalogServicesRequest services = CatalogServicesRequest.newBuilder().setQueryParams(NOTHING).build();
    CatalogServiceRequest instances = CatalogServiceRequest.newBuilder().setQueryParams(NOTHING).build();
    CatalogNodesRequest nodes = CatalogNodesRequest.newBuilder().setQueryParams(NOTHING).build();
    step("catalog: services", List.of("a", "b"), () -> c.getCatalogServices(services).getValue().get("java"));
    step("catalog: instances", "v", () -> c.getCatalogService("java", instances).getValue().get(0).getServiceMeta().get("k"));
    step("catalog: nodes", 1, () -> c.getCatalogNodes(nodes).getValue().size());
    step("catalog: datacenters", List.of("dc1"), () -> c.getCatalogDatacenters().getValue());
    step("agent: maintenance", true, () -> {
      c.agentServiceSetMaintenance("java-1", true, "why");
      return soon(() -> c.getAgentChecks().getValue().containsKey("_service_maintenance:java-1"));
    });
    NewCheck tcp = new NewCheck();
    tcp.setName("java-tcp");
    tcp.setId("java-tcp");
    tcp.setTcp("localhost:" + port);
    tcp.setInterval("1s");
    tcp.setTimeout("1s");
    step("agent: a TCP check", true, () -> {
      c.agentCheckRegister(tcp);
      return soon(() -> c.getAgentChecks().getValue().get("java-tcp").getStatus().toString().equalsIgnoreCase("passing"));
    });
    step("agent: deregister", false, () -> {
      c.agentServiceDeregister("java-1");
      c.agentCheckDeregister("java-tcp");
      return c.getAgentServices().getValue().containsKey("java-1");
    });
    step("event: fire and list", true, () -> {
      c.eventFire("java", "hello", new EventParams(), NOTHING);
      EventListRequest named = EventListRequest.newBuilder().setName("java").setQueryParams(NOTHING).build();
      return soon(() -> {
        List<Event> events = c.eventList(named).getValue();
        return !events.isEmpty() && new String(Base64.getDecoder().decode(events.get(0).getPayload())).equals("hello");
      });
    });
    step("coordinate: datacenters", 1, () -> c.getDatacenters().getValue().size());
  }

  static void locks(ConsulClient c) {
    AtomicInteger inside = new AtomicInteger();
    AtomicInteger worst = new AtomicInteger();
    AtomicInteger turns = new AtomicInteger();
    step("lock: four contenders, ten turns each", List.of(40, 1), () -> {
      List<Thread> threads = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        Thread thread = new Thread(() -> {
          Lock lock = new Lock("java-lock", "15s");
          for (int turn = 0; turn < 10; turn++) {
            lock.acquire();
            worst.accumulateAndGet(inside.incrementAndGet(), Math::max);
            try {
              Thread.sleep(3);
            } catch (InterruptedException stopped) {
              return;
            }
            turns.incrementAndGet();
            inside.decrementAndGet();
            lock.release();
          }
          lock.end();
        });
        thread.start();
        threads.add(thread);
      }
      for (Thread thread : threads) {
        thread.join(30000);
      }
      return List.of(turns.get(), worst.get());
    });
    Lock lock = new Lock("java-ephemeral", "10s");
    step("session: renew", true, () -> c.renewSession(lock.session, NOTHING).getValue() != null);
    step("session: info", "java", () -> c.getSessionInfo(lock.session, NOTHING).getValue().getName());
    step("session: list", false, () -> c.getSessionList(NOTHING).getValue().isEmpty());
    step("session: its key goes with it", null, () -> {
      lock.acquire();
      lock.end();
      return c.getKVValue("java-ephemeral").getValue();
    });
    step("session: gone", null, () -> c.getSessionInfo(lock.session, NOTHING).getValue());
  }
}
