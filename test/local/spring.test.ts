import { clientSuite } from "./client-suite";

clientSuite({
  example: "spring-app",
  prefix: "127.75.0",
  manifest: "spring-app/kubernetes.yaml",
  // With a profile, whose folder of keys has a name of its own.
  key: "config/orders,prod/data",
  command: (jar) => ["java", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-Dspring.profiles.active=prod", "-jar", jar],
  exit: 143, // a JVM that SIGTERM ended
});
