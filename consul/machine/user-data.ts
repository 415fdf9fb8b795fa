import { AclObject, owners } from "../acl";
import { ConsulFile, ConsulNode } from "../node";
import { readScript, shortWithApi } from "../scripts";
import { aclDir, dataMount, machineLayout, scriptDir } from "./layout";
import { snapshotFiles, Snapshots } from "./snapshots";

/** The cloud takes 32 KB of user data, counted before base64 (RunInstances, ModifyInstanceAttribute). */
export const userDataLimit = 32 * 1024;

export interface ServerMachine {
  readonly node: ConsulNode;
  /** Consul version to have installed, where from, and the zip's SHA-256 ("" for the mirror's SHA256SUMS). */
  readonly version: string;
  readonly downloadMirror: string;
  readonly downloadSha256: string;
  /** Id of the data disk, d-...; in the machine its serial is this without the prefix. */
  readonly diskId: string;
  readonly managementToken: string;
  readonly acl: readonly AclObject[];
  /** Snapshots to take, if any. */
  readonly snapshots?: Snapshots | undefined;
}

/**
 * User data of one server machine: a boothook, because cloud-init fetches it anew and runs it at each boot, so that a
 * change takes effect at the next one. It only writes files and starts units: it runs before sysinit.target, and the
 * units do the waiting (reference/alicloud.md §10).
 * @throws Error where the text is over the cloud's limit, with its size.
 */
export function renderUserData(machine: ServerMachine): string {
  const { node, snapshots } = machine;
  const units = ["consul.service", "consul-acl.service", ...(snapshots ? ["consul-snapshot.timer"] : [])].join(" ");
  const files: ConsulFile[] = [
    ...node.files,
    { path: `${scriptDir}/install.sh`, mode: "0755", content: readScript("machine/install.sh"), secret: false },
    { path: `${scriptDir}/disk.sh`, mode: "0755", content: readScript("machine/disk.sh"), secret: false },
    { path: `${scriptDir}/acl.sh`, mode: "0755", content: shortWithApi("scripts/acl.sh"), secret: false },
    { path: "/etc/consul.management-token", mode: "0600", content: `${machine.managementToken}\n`, secret: true },
    ...machine.acl.map(({ file, content }) => ({ path: `${aclDir}/${file}`, mode: "0600", content, secret: true })),
    { path: "/etc/systemd/system/consul.service", mode: "0644", content: consulUnit(machine), secret: false },
    { path: "/etc/systemd/system/consul-disk.service", mode: "0644", content: diskUnit(machine), secret: false },
    { path: "/etc/systemd/system/consul-acl.service", mode: "0644", content: aclUnit(), secret: false },
    ...(snapshots ? snapshotFiles(snapshots, node, scriptDir) : []),
  ];
  const text = [
    "#cloud-boothook",
    "#!/bin/sh",
    `# Consul server ${node.name}. Runs at every boot; written by Pulumi, changes made here by hand are lost.`,
    "set -eu",
    "umask 077",
    "getent passwd consul >/dev/null ||",
    `  useradd --system --user-group --home-dir ${dataMount} --no-create-home --shell /usr/sbin/nologin consul`,
    "# What an earlier version of this text wrote and this one does not must not stay.",
    `rm -rf ${machineLayout.configDir} ${aclDir}`,
    "rm -f /etc/systemd/system/consul-snapshot.* /etc/systemd/system/timers.target.wants/consul-snapshot.timer",
    `install -d -m 0750 -o root -g consul ${machineLayout.configDir}`,
    `install -d -m 0700 ${aclDir}`,
    `install -d -m 0755 ${scriptDir}`,
    "",
    "# put PATH MODE GROUP: standard input becomes the file, whole or not at all.",
    "put() {",
    '  cat >"$1.new"',
    '  chown "root:$3" "$1.new"',
    '  chmod "$2" "$1.new"',
    '  mv -f "$1.new" "$1"',
    "}",
    "",
    ...files.flatMap(put),
    "systemctl daemon-reload",
    `systemctl enable --quiet ${units}`,
    `systemctl start --no-block ${units}`,
    "",
  ].join("\n");
  const size = Buffer.byteLength(text);
  if (size > userDataLimit) {
    throw new Error(
      `the user data of ${node.name} has ${size} bytes, the cloud takes ${userDataLimit} (32 KB): shorten the settings that go into it`,
    );
  }
  return text;
}

function put(file: ConsulFile): string[] {
  const group = file.path.startsWith(`${machineLayout.configDir}/`) ? "consul" : "root";
  const end = "END_OF_FILE";
  if (file.content.split("\n").includes(end)) throw new Error(`${file.path} has a line ${end}`);
  const content = file.content.endsWith("\n") ? file.content : `${file.content}\n`;
  return [`put ${file.path} ${file.mode} ${group} <<'${end}'`, `${content}${end}`];
}

function consulUnit(machine: ServerMachine): string {
  const { node, version, downloadMirror, downloadSha256 } = machine;
  return `[Unit]
Description=Consul server ${node.name}
Documentation=https://developer.hashicorp.com/consul/docs
Wants=network-online.target
Requires=consul-disk.service
# The mount is named so that Consul stops before it is unmounted.
After=network-online.target consul-disk.service opt-consul.mount
# A mirror that is down must not end in "start request repeated too quickly".
StartLimitIntervalSec=0

[Service]
Type=exec
User=consul
Group=consul
# "+": as root and outside the sandbox below.
ExecStartPre=+${scriptDir}/install.sh ${[version, downloadMirror, downloadSha256].filter(Boolean).join(" ")}
ExecStart=${node.command.join(" ")}
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
`;
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
