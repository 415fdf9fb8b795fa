package orders;

import java.time.Duration;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.autoconfigure.condition.ConditionalOnProperty;
import org.springframework.cloud.consul.ConsulProperties;
import org.springframework.cloud.consul.serviceregistry.ConsulAutoServiceRegistration;
import org.springframework.cloud.consul.serviceregistry.ConsulRegistration;
import org.springframework.cloud.consul.serviceregistry.ConsulServiceRegistry;
import org.springframework.context.ApplicationContext;
import org.springframework.context.event.ContextClosedEvent;
import org.springframework.context.event.EventListener;
import org.springframework.http.HttpStatus;
import org.springframework.http.client.JdkClientHttpRequestFactory;
import org.springframework.scheduling.annotation.Scheduled;
import org.springframework.stereotype.Component;
import org.springframework.web.client.RestClient;

/**
 * What Spring Cloud Consul does not do: it registers again where the agent has lost its data, and on the way out it
 * deregisters before the port closes.
 */
@Component
@ConditionalOnProperty("spring.cloud.consul.discovery.enabled")
class Registration {
  private static final Logger log = LoggerFactory.getLogger(Registration.class);
  private final ApplicationContext context;
  private final ConsulAutoServiceRegistration lifecycle;
  private final ConsulServiceRegistry registry;
  private final ConsulRegistration own;
  private final RestClient agent;
  private final Duration drain;

  /**
   * @param drain seconds between deregistering and the end of the port: longer than anybody keeps an address from DNS,
   *     which is 5 s
   */
  Registration(
      ApplicationContext context,
      ConsulAutoServiceRegistration lifecycle,
      ConsulServiceRegistry registry,
      ConsulRegistration own,
      ConsulProperties consul,
      @Value("${spring.cloud.consul.token:}") String token,
      @Value("${DRAIN_SECONDS:6}s") Duration drain) {
    this.context = context;
    this.lifecycle = lifecycle;
    this.registry = registry;
    this.own = own;
    this.drain = drain;
    var http = new JdkClientHttpRequestFactory();
    http.setReadTimeout(Duration.ofSeconds(10));
    this.agent =
        RestClient.builder()
            .requestFactory(http)
            .baseUrl("http://" + consul.getHost() + ":" + consul.getPort())
            .defaultHeader("X-Consul-Token", token)
            .build();
  }

  /**
   * An agent that has lost its data does not know its services any more, and tells nobody. Never while the instance is
   * being deregistered: it would be registered again.
   */
  @Scheduled(fixedDelayString = "5s", initialDelayString = "5s")
  synchronized void keep() {
    if (!lifecycle.isRunning()) return;
    try {
      var status =
          agent
              .get()
              .uri("/v1/agent/service/{id}", own.getInstanceId())
              .exchange((request, response) -> response.getStatusCode());
      if (status.isSameCodeAs(HttpStatus.NOT_FOUND)) registry.register(own);
    } catch (RuntimeException unreachable) {
      log.warn("not known whether {} is registered: {}", own.getInstanceId(), unreachable.getMessage());
    }
  }

  /** The context closes before the web server does, and waits for this. */
  @EventListener
  void leave(ContextClosedEvent event) throws InterruptedException {
    if (event.getApplicationContext() != context || !lifecycle.isRunning()) return;
    deregister();
    Thread.sleep(drain.toMillis());
  }

  private synchronized void deregister() {
    try {
      lifecycle.stop();
    } catch (RuntimeException unreachable) {
      log.warn("not deregistered: {}", unreachable.getMessage());
    }
  }
}
