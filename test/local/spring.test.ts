import { clientSuite } from "./client-suite";

clientSuite({
  example: "spring-app",
  prefix: "127.71.0",
  command: (jar) => ["java", "-XX:TieredStopAtLevel=1", "-Xmx128m", "-jar", jar],
  liveness: "/actuator/health/liveness",
  readiness: "/actuator/health/readiness",
  exit: 143, // a JVM that SIGTERM ended
});
