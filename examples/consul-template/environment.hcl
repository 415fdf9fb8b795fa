# Runs an application with keys of Consul in its environment, and starts it again when one of them changes.
# README.md explains it.

# By itself it says nothing of what it renders, and ends upon SIGINT alone.
log_level   = "info"
kill_signal = "SIGTERM"

consul {
  # 0 is for ever. By default consul-template ends when Consul has not answered twelve times, and the application with it.
  retry {
    attempts    = 0
    max_backoff = "10s"
  }
}

wait {
  min = "1s"
  max = "5s"
}

template {
  destination = "/run/orders/environment"
  perms       = "0600"
  # config/orders/db-host is DB_HOST. Quoted for the shell, whatever a value has in it.
  contents = <<-EOT
  {{- range ls "config/orders" }}
  export {{ .Key | replaceAll "-" "_" | toUpper }}='{{ .Value | replaceAll "'" "'\\''" }}'
  {{- end }}
  EOT
}

exec {
  command = ["sh", "-c", ". /run/orders/environment; exec node server.js"]
  # The application deregisters and waits for 6 s: until then nothing else may end it.
  kill_signal  = "SIGTERM"
  kill_timeout = "30s"
  # Instances do not all start again at the same time.
  splay = "10s"
}
