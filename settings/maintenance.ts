import { z } from "zod";
import { rule } from "./mistakes";
import { oneOf, text } from "./values";

/** Days of the week as a window names them, Sunday first. */
export const weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"] as const;

const time = text("a time of day such as 02:00", /^([01]\d|2[0-3]):[0-5]\d$/);

/** Minutes from midnight to a time of day. */
export function minutesOf(time: string): number {
  const [hours = 0, minutes = 0] = time.split(":").map(Number);
  return hours * 60 + minutes;
}

function isTimeZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

/** When the scheduled pipeline may run `pulumi up` by itself: docs/operations.md. Without the block it never does. */
export const maintenance = z
  .strictObject({
    days: z
      .array(oneOf(...weekdays), { error: "a list of days such as [tue, wed, thu]" })
      .refine((days) => days.length > 0, { error: "one day or more; without the block `up` never runs by itself" })
      .default(["tue", "wed", "thu"])
      .describe("days on which the window opens"),
    from: time.default("02:00").describe("when it opens, HH:MM"),
    to: time.default("05:00").describe("when it closes, an hour later or more; may be on the next day"),
    timeZone: text("a time zone such as Asia/Shanghai", /\S/, (zone) => !isTimeZone(zone))
      .default("UTC")
      .describe("zone of days and times"),
  })
  .check(
    rule(["from", "to"], ({ from, to }, { wrong }) => {
      const length = (minutesOf(to) - minutesOf(from) + 1440) % 1440;
      if (length < 60) wrong(["to"], "an hour or more after maintenance.from: the pipeline looks once an hour", to);
    }),
  );
