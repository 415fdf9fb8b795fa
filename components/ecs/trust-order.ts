import { trustPattern } from "../../consul/config";
import { gossipPattern, onlyAddsKeys } from "../../consul/gossip";
import { useGossipKeys } from "../../consul/machine/commands";
import { SetTo, signer } from "../../consul/upgrade";
import { Trust } from "../trust";
import { valueOf } from "../value-of";
import { Tags } from "./change";
import { Machine } from "./cloud";
import { progress, ServerMachines } from "./machines";

export interface TrustOrderArgs {
  readonly machines: ServerMachines;
  readonly trust: Pick<Trust, "caCertificate" | "gossipKeys" | "managementToken">;
  /** What the servers are to be set to. */
  readonly wanted: Tags & SetTo;
}

/** The order among the nodes in which gossip keys and authorities change, so that nobody is locked out. */
export class TrustOrder {
  constructor(private readonly args: TrustOrderArgs) {}

  /** Whether a server's change is a step of that order. @param before tags of the server's machine */
  concerns(before: Tags): boolean {
    return before["consul-gossip"] !== this.args.wanted["consul-gossip"] || this.isNewSigner(before);
  }

  /** Whether another authority is to sign from now on. */
  isNewSigner(before: Tags): boolean {
    return signer(before) !== undefined && signer(before) !== signer(this.args.wanted);
  }

  /**
   * The step of the order that a server's change belongs to, as a question for the gate. The answer is what is in the
   * way; it is empty once every node is ready, and by then every node knows and uses the gossip keys.
   */
  step(before: Tags): (peers: readonly Machine[]) => Promise<string[]> {
    const { wanted } = this.args;
    let gossipIsSet = before["consul-gossip"] === undefined || before["consul-gossip"] === wanted["consul-gossip"];
    return async (peers) => {
      const late = this.isNewSigner(before) ? await this.withoutNewAuthority(peers) : [];
      if (late.length > 0) return [`these nodes do not trust the new authority yet: ${late.join(", ")}`];
      const deaf = gossipIsSet ? [] : await this.withoutGossipKeys(peers, before);
      if (deaf.length > 0) {
        return [
          `these nodes do not start with the gossip keys for this step yet: ${deaf.join(", ")}: run \`pulumi up\` for the stack that has them, then here again`,
        ];
      }
      if (!gossipIsSet) await this.useGossipKeys(peers);
      gossipIsSet = true;
      return [];
    };
  }

  /** Agents that do not trust the authorities of this program. */
  private async withoutNewAuthority(peers: readonly Machine[]): Promise<string[]> {
    const { machines, trust } = this.args;
    return machines.behind(peers, trustPattern(await valueOf(trust.caCertificate)));
  }

  /** Agents that would be alone after their next start, once a key is switched or goes. */
  private async withoutGossipKeys(peers: readonly Machine[], before: Tags): Promise<string[]> {
    const { machines, trust, wanted } = this.args;
    if (onlyAddsKeys(before["consul-gossip"] ?? "", wanted["consul-gossip"])) return [];
    return machines.behind(peers, gossipPattern(await valueOf(trust.gossipKeys)));
  }

  private async useGossipKeys(peers: readonly Machine[]): Promise<void> {
    const { machines, trust } = this.args;
    await machines.onOne(peers, useGossipKeys(await valueOf(trust.gossipKeys), await valueOf(trust.managementToken)));
    progress("gossip: every member knows all keys and encrypts with the wanted one");
  }
}
