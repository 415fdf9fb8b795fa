import { ConsulFile } from "../node";
import { readScript, withoutComments } from "../scripts";

/** When snapshots are taken, how many stay, and where copies go. */
export interface Snapshots {
  /** Divides 24. */
  readonly everyHours: number;
  readonly keep: number;
  /** Copies in OSS, put there with the machine's RAM role. */
  readonly copies?: { readonly bucket: string; readonly prefix: string } | undefined;
}

/** Minute of the hour at which snapshots are taken: not the full hour, when everything else happens. */
const minute = 17;

/** The schedule as a CronJob has it. */
export function cronSchedule({ everyHours }: Snapshots): string {
  return everyHours === 24 ? `${minute} 0 * * *` : `${minute} */${everyHours} * * *`;
}

/**
 * What a server machine needs to take snapshots. Every server has the timer, and only the one that leads acts on it: no
 * lock can be left behind, and a server that comes to lead takes over with the next tick.
 */
export function snapshotFiles(snapshots: Snapshots, server: { address: string }, scriptDir: string): ConsulFile[] {
  const { keep, everyHours, copies } = snapshots;
  const command = [`${scriptDir}/snapshot.sh`, "/opt/consul/snapshots", keep, everyHours];
  const file = (path: string, mode: string, content: string) => ({ path, mode, content, secret: false });
  return [
    file(`${scriptDir}/snapshot.sh`, "0755", withoutComments(readScript("scripts/snapshot.sh"))),
    ...(copies ? [file(`${scriptDir}/oss-put.py`, "0644", withoutComments(readScript("machine/oss-put.py")))] : []),
    file(
      "/etc/systemd/system/consul-snapshot.service",
      "0644",
      `[Unit]
Description=Snapshot of Consul, where this server leads
After=consul.service

[Service]
Type=oneshot
# As root: whoever may take snapshots may read every secret in Consul.
Environment=CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token
Environment=SNAPSHOT_SERVER=${server.address}
ExecStart=${[...command, ...(copies ? [copies.bucket, copies.prefix] : [])].join(" ")}
TimeoutStartSec=30min
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=-/opt/consul
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
`,
    ),
    file(
      "/etc/systemd/system/consul-snapshot.timer",
      "0644",
      `[Unit]
Description=Snapshots of Consul

[Timer]
OnCalendar=*-*-* ${everyHours === 24 ? "00" : `00/${everyHours}`}:${minute}:00 UTC
AccuracySec=1s

[Install]
WantedBy=timers.target
`,
    ),
  ];
}
