"""A service that registers at the agent of its own node, with py-consul."""

import json
import logging
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import consul
import yaml

NAME = "orders"
ADDRESS = os.environ["POD_IP"]
PORT = 8080
ID = f"{NAME}-{ADDRESS.replace('.', '-')}"
DRAIN = float(os.environ.get("DRAIN_SECONDS", "6"))  # longer than anybody keeps an address from DNS: 5 s

logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
log = logging.getLogger(NAME)

configuration = None  # until it was read once
stopping = threading.Event()
own = threading.Lock()  # nothing registers while the service is deregistered


def client():
    """One for each thread: they share no connection. Address and token are in CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN."""
    return consul.Consul(connections_timeout=10)


def register(agent):
    agent.agent.service.register(
        NAME,
        service_id=ID,
        address=ADDRESS,
        port=PORT,
        # Whoever was killed leaves the catalog after ten minutes; Check.ttl has no argument for this.
        check={**consul.Check.ttl("30s"), "DeregisterCriticalServiceAfter": "10m"},
    )
    log.info("registered %s", ID)


def keep_registered():
    agent = client()
    while not stopping.wait(3):
        try:
            with own:
                # False where the agent knows no such check: a new instance, or an agent that has lost its data.
                if not stopping.is_set() and configuration is not None and not heartbeat(agent):
                    register(agent)
                    heartbeat(agent)
        except Exception as error:  # the agent is away, or its server is: the next turn asks again
            log.warning("no heartbeat: %s", error)


def heartbeat(agent):
    return agent.agent.check.ttl_pass(f"service:{ID}")


def follow_configuration():
    global configuration
    agent = client()
    index = None
    while not stopping.is_set():
        try:
            seen = index
            # Answers when the key changes, or after a minute.
            index, entry = agent.kv.get(f"config/{NAME}/data", index=index, wait="60s")
            if entry is None:
                log.warning("there is no key config/%s/data", NAME)
                stopping.wait(1)
            elif index != seen:
                configuration = yaml.safe_load(entry["Value"])
        except Exception as error:
            log.warning("configuration not read: %s", error)
            index = None
            stopping.wait(1)


def find(service):
    _, instances = client().health.service(service, passing=True)
    return [
        {"address": one["Service"]["Address"] or one["Node"]["Address"], "port": one["Service"]["Port"]}
        for one in instances
    ]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = configuration is not None and not stopping.is_set()
        if self.path == "/health/live":
            self.answer(200, {"id": ID})
        elif self.path == "/health/ready":
            self.answer(200 if ready else 503, {"ready": ready})
        elif self.path == "/":
            self.answer(200, {"name": NAME, "greeting": (configuration or {}).get("greeting", "")})
        elif self.path.startswith("/find/"):
            self.answer(200, find(self.path.removeprefix("/find/")))
        else:
            self.answer(404, {})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def stop():
    """Deregisters, waits until nobody has the address any more, and only then closes the port."""
    stopping.set()
    try:
        with own:
            client().agent.service.deregister(ID)
        log.info("deregistered %s", ID)
    except Exception as error:
        log.warning("not deregistered: %s", error)
    time.sleep(DRAIN)
    server.shutdown()


server = ThreadingHTTPServer((ADDRESS, PORT), Handler)
server.daemon_threads = False  # requests under way are answered
for work in (keep_registered, follow_configuration):
    threading.Thread(target=work, daemon=True).start()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())
server.serve_forever()
server.server_close()
sys.exit(0)
