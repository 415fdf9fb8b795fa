import { owners } from "../acl";
import { installKeyring } from "../gossip";
import { ConsulFile } from "../node";
import { aclDir, dataMount, machineLayout, scriptDir, unitDir } from "./layout";
import { ServerMachine } from "./user-data";

/** The systemd units of a server's machine, apart from those for snapshots. */
export function serverUnits(machine: ServerMachine): ConsulFile[] {
  const unit = (name: string, content: string) => ({
    path: `${unitDir}/${name}`,
    mode: "0644",
    content,
    secret: false,
  });
  return [
    unit("consul.service", consulUnit(machine)),
    unit("consul-disk.service", diskUnit(machine)),
    unit("consul-grow.service", growUnit),
    unit("consul-grow.timer", growTimer),
    unit("consul-acl.service", aclUnit()),
  ];
}

/** The part of a unit that runs Consul on a machine, a server or an agent. */
export interface ConsulProcess {
  readonly version: string;
  /** The argument list as systemd takes it. */
  readonly command: string;
  /** Lines before the keyring is put in place, once the version is installed. */
  readonly before: readonly string[];
  /** Lines after that, just before the start. */
  readonly after?: readonly string[];
}

/** From `[Service]` on: how Consul is started, and what its process may not do. */
export function consulProcess({ version, command, before, after = [] }: ConsulProcess): string {
  return [
    `[Service]
Type=exec
User=consul
Group=consul
# "+": as root and outside the sandbox below.
ExecStartPre=+${scriptDir}/install.sh ${version}`,
    ...before,
    "# What a keyring remembers must not win.",
    `ExecStartPre=/usr/bin/${installKeyring(machineLayout(version))}`,
    ...after,
    `ExecStart=${command}
ExecReload=/bin/kill -HUP $MAINPID
KillSignal=SIGTERM
TimeoutStartSec=30min
TimeoutStopSec=60
Restart=always
RestartSec=5
LimitNOFILE=65536

CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=-${dataMount}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
UMask=0077
# The metadata service would hand this machine's user data, and its role, to anyone who asks from here.
IPAddressDeny=100.100.100.200

[Install]
WantedBy=multi-user.target
`,
  ].join("\n");
}

function consulUnit({ node, version }: ServerMachine): string {
  return `[Unit]
Description=Consul server ${node.name}
Documentation=https://developer.hashicorp.com/consul/docs
Wants=network-online.target
Requires=consul-disk.service
# The mount is named so that Consul stops before it is unmounted.
After=network-online.target consul-disk.service opt-consul.mount
# A mirror that is down must not end in "start request repeated too quickly".
StartLimitIntervalSec=0

${consulProcess({
  version,
  command: node.command.join(" "),
  before: [
    "# What converge.sh compares with: what this process was started with.",
    `ExecStartPre=+/bin/cp ${scriptDir}/wanted /run/consul.runs`,
  ],
})}`;
}

/**
 * A unit of its own: what a sandboxed unit mounts stays in its own mount namespace, and PrivateDevices keeps the whole
 * unit from the disk, both also for "ExecStartPre=+".
 */
function diskUnit({ diskId }: ServerMachine): string {
  return `[Unit]
Description=Data disk of Consul

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=${scriptDir}/disk.sh ${diskId.replace(/^d-/, "")} ${dataMount}
TimeoutStartSec=infinity
`;
}

/** Growing takes no restart of anything, so it has a unit of its own. Only what it did is logged, not that it ran. */
const growUnit = `[Unit]
Description=File system of Consul's data disk
ConditionPathIsMountPoint=${dataMount}

[Service]
Type=oneshot
SyslogLevel=notice
LogLevelMax=notice
ExecStart=${scriptDir}/disk.sh grow ${dataMount}
`;

const growTimer = `[Unit]
Description=Growth of Consul's data disk

[Timer]
OnCalendar=*:03/10

[Install]
WantedBy=timers.target
`;

function aclUnit(): string {
  return `[Unit]
Description=Consul ACL policies and tokens
Wants=consul.service
After=consul.service

[Service]
Type=oneshot
RemainAfterExit=yes
Environment=CONSUL_HTTP_ADDR=http://127.0.0.1:8500 CONSUL_HTTP_TOKEN_FILE=/etc/consul.management-token
Environment=ACL_OWNER=${owners.servers}
# A loop, since systemd before 244 (Alibaba Cloud Linux 3 has 239) refuses Restart= for oneshot.
ExecStart=/bin/sh -c 'until ${scriptDir}/acl.sh ${aclDir}; do sleep 10; done'
TimeoutStartSec=infinity
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
CapabilityBoundingSet=CAP_DAC_READ_SEARCH

[Install]
WantedBy=multi-user.target
`;
}
