import type { MaintenanceSettings } from "../settings";
import { minutesOf, weekdays } from "../settings/maintenance";

/** Whether a maintenance window is open. */
export function isOpen(window: MaintenanceSettings, now: Date): boolean {
  const { day, minutes } = localTime(window.timeZone, now);
  const [from, to] = [minutesOf(window.from), minutesOf(window.to)];
  const opens = (index: number) => window.days.some((name) => weekdays.indexOf(name) === (index + 7) % 7);
  if (from < to) return opens(day) && minutes >= from && minutes < to;
  // Beyond midnight it is the window of the day before.
  return (opens(day) && minutes >= from) || (opens(day - 1) && minutes < to);
}

/** When a window that is closed opens next, to the minute. */
export function nextOpening(window: MaintenanceSettings, now: Date): Date {
  const minute = 60_000;
  let at = Math.ceil(now.getTime() / minute) * minute;
  // Eight days: a window that opens once a week may just have closed.
  for (const end = at + 8 * 1440 * minute; at < end && !isOpen(window, new Date(at));) at += minute;
  return new Date(at);
}

/** Day of the week, 0 is Sunday, and minutes since midnight, in a time zone. */
function localTime(timeZone: string, now: Date): { readonly day: number; readonly minutes: number } {
  const options = { timeZone, weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" } as const;
  // Making one takes far longer than using it.
  const format = formats.get(timeZone) ?? new Intl.DateTimeFormat("en-US", options);
  formats.set(timeZone, format);
  const parts = format.formatToParts(now);
  const part = (type: Intl.DateTimeFormatPartTypes) => parts.find((one) => one.type === type)?.value ?? "";
  const day = weekdays.findIndex((name) => name === part("weekday").toLowerCase());
  return { day, minutes: Number(part("hour")) * 60 + Number(part("minute")) };
}

const formats = new Map<string, Intl.DateTimeFormat>();
