package orders;

import java.util.List;
import java.util.Map;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.cloud.client.discovery.DiscoveryClient;
import org.springframework.cloud.context.config.annotation.RefreshScope;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.RestController;

/** What the service does: it greets as its configuration says, and finds others. */
@RestController
@RefreshScope // made anew with the next request after a key has changed
class Orders {
  private final String name;
  private final String greeting;
  private final DiscoveryClient consul;

  Orders(
      @Value("${spring.application.name}") String name,
      @Value("${greeting:}") String greeting,
      DiscoveryClient consul) {
    this.name = name;
    this.greeting = greeting;
    this.consul = consul;
  }

  @GetMapping("/")
  Map<String, String> greet() {
    return Map.of("name", name, "greeting", greeting);
  }

  record Instance(String address, int port) {}

  @GetMapping("/find/{service}")
  List<Instance> find(@PathVariable String service) {
    return consul.getInstances(service).stream()
        .map(instance -> new Instance(instance.getHost(), instance.getPort()))
        .toList();
  }
}
