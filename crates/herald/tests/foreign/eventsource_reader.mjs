// Pages through, then streams, with fetch and npm's eventsource; prints what it is given as lines.
//
// Arguments: the base URL, how many notifications to stream, and the HER-ids.

import { createRequire } from "node:module";
import { join } from "node:path";
import process from "node:process";

const require = createRequire(join(process.env.HERALD_TOOLS, "node", "package.json"));
const { EventSource } = require("eventsource");

const [base, count, ...herIds] = process.argv.slice(2);
const headers = { "api-version": "3", "nhn-source-system": "eventsource/1" };

function address(path, more) {
  const query = new URLSearchParams(more);
  for (const herId of herIds) query.append("HerIds", herId);
  return `${base}${path}?${query}`;
}

let after = 0;
for (;;) {
  const query = { Offset: after, NotificationsToFetch: 1000 };
  const answer = await fetch(address("/notifications", query), { headers });
  if (answer.status !== 200) throw new Error(`polling: ${answer.status}`);
  const { notifications } = await answer.json();
  for (const notification of notifications) console.log("polled", JSON.stringify(notification));
  if (notifications.length === 0) break;
  after = notifications.at(-1).offset;
}

let left = Number(count);
const source = new EventSource(address("/notifications/stream", { Offset: 0 }), {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
});
source.addEventListener("connected", (event) => console.log("connected", JSON.stringify(event.data)));
source.addEventListener("notification", (event) => {
  console.log("streamed", event.lastEventId, event.data);
  left -= 1;
  if (left === 0) source.close();
});
source.addEventListener("error", (event) => {
  console.error("the stream broke:", event.code, event.message);
  process.exitCode = 1;
  source.close();
});
