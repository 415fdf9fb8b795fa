// A service that registers at the agent of its own node, with Consul's own Go client.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
	"gopkg.in/yaml.v3"
)

const (
	name = "orders"
	port = 8080
)

type configuration struct {
	Greeting string `yaml:"greeting"`
}

type app struct {
	consul        *api.Client
	address, id   string
	configuration atomic.Pointer[configuration] // nil until it was read once
	stopping      atomic.Bool
	own           sync.Mutex // nothing registers while the instance is deregistered
}

func main() {
	// Address and token are in CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN.
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	address := os.Getenv("POD_IP")
	a := &app{consul: client, address: address, id: name + "-" + strings.ReplaceAll(address, ".", "-")}
	server := &http.Server{Addr: address + ":8080", Handler: a.routes()}
	stopped := make(chan struct{})
	go a.followConfiguration()
	go a.keepRegistered()
	go func() {
		defer close(stopped)
		a.waitForStop()
		// Requests under way are answered.
		ending, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Shutdown(ending); err != nil {
			log.Printf("requests were cut off: %v", err)
		}
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-stopped
}

func (a *app) register() error {
	err := a.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: a.id, Name: name, Address: a.address, Port: port,
		Check: &api.AgentServiceCheck{TTL: "30s", DeregisterCriticalServiceAfter: "10m"},
	})
	if err == nil {
		log.Printf("registered %s", a.id)
	}
	return err
}

func (a *app) heartbeat() error {
	// A question to an agent that hangs must not last: the client by itself has no limit.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return a.consul.Agent().UpdateTTLOpts("service:"+a.id, "", api.HealthPassing, (&api.QueryOptions{}).WithContext(ctx))
}

func (a *app) keepRegistered() {
	for range time.Tick(3 * time.Second) {
		if err := a.turn(); err != nil {
			log.Printf("no heartbeat: %v", err)
		}
	}
}

func (a *app) turn() error {
	a.own.Lock()
	defer a.own.Unlock()
	if a.stopping.Load() || a.configuration.Load() == nil {
		return nil
	}
	err := a.heartbeat()
	// The agent knows no such check: a new instance, or an agent that has lost its data.
	if status := (api.StatusError{}); errors.As(err, &status) && status.Code == http.StatusNotFound {
		if err := a.register(); err != nil {
			return err
		}
		return a.heartbeat()
	}
	return err
}

func (a *app) followConfiguration() {
	key := "config/" + name + "/data"
	for index := uint64(0); !a.stopping.Load(); {
		// Answers when the key changes, or after a minute.
		ctx, cancel := context.WithTimeout(context.Background(), 75*time.Second)
		options := &api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}
		pair, meta, err := a.consul.KV().Get(key, options.WithContext(ctx))
		cancel()
		switch {
		case err != nil:
			log.Printf("configuration not read: %v", err)
		case pair == nil:
			log.Printf("there is no key %s", key)
		case meta.LastIndex == index:
			continue
		default:
			index = meta.LastIndex
			read := &configuration{}
			if err := yaml.Unmarshal(pair.Value, read); err != nil {
				log.Printf("%s is left as it was: %v", key, err)
				continue
			}
			a.configuration.Store(read)
			continue
		}
		index = 0
		time.Sleep(time.Second)
	}
}

// waitForStop returns when nobody has the address any more.
func (a *app) waitForStop() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	<-signals
	a.stopping.Store(true)
	a.own.Lock()
	defer a.own.Unlock()
	if err := a.consul.Agent().ServiceDeregister(a.id); err != nil {
		log.Printf("not deregistered: %v", err)
	} else {
		log.Printf("deregistered %s", a.id)
	}
	drain := 6 * time.Second // longer than anybody keeps an address from DNS, which is 5 s
	if given, err := time.ParseDuration(os.Getenv("DRAIN_SECONDS") + "s"); err == nil {
		drain = given
	}
	time.Sleep(drain)
}

type instance struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

func (a *app) find(service string) ([]instance, error) {
	entries, _, err := a.consul.Health().Service(service, "", true, nil)
	found := []instance{}
	for _, entry := range entries {
		address := entry.Service.Address
		if address == "" {
			address = entry.Node.Address
		}
		found = append(found, instance{address, entry.Service.Port})
	}
	return found, err
}

func (a *app) routes() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /health/live", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, a.id) })
	routes.HandleFunc("GET /health/ready", func(w http.ResponseWriter, _ *http.Request) {
		if a.stopping.Load() || a.configuration.Load() == nil {
			answer(w, 503, a.id)
			return
		}
		answer(w, 200, a.id)
	})
	routes.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		greeting := ""
		if read := a.configuration.Load(); read != nil {
			greeting = read.Greeting
		}
		answer(w, 200, map[string]string{"name": name, "greeting": greeting})
	})
	routes.HandleFunc("GET /find/{service}", func(w http.ResponseWriter, r *http.Request) {
		found, err := a.find(r.PathValue("service"))
		if err != nil {
			answer(w, 503, err.Error())
			return
		}
		answer(w, 200, found)
	})
	return routes
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print(err)
	}
}
